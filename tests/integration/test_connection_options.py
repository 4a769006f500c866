"""What a PostgreSQL URL sets reaches the server, beside what the service sets itself."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

import pytest
from psycopg.errors import DivisionByZero
from sqlalchemy import URL, Engine, make_url, text

from service.config import Settings
from service.domain.errors import Misconfigured
from service.store import engine, pipeline, schema
from service.store.pipeline import BEGIN, COMMIT, Pipeline, PreparedStatement, TransactionTooLong
from service.store.tables import NAMES


@contextmanager
def _built(url: str | URL) -> Iterator[Engine]:
    built = engine.build(url if isinstance(url, str) else url.render_as_string(hide_password=False), "tests options")
    try:
        yield built
    finally:
        built.dispose()


def _shown(database: Engine, *names: str) -> dict[str, str]:
    with database.begin() as tx:
        return {name: tx.execute(text("SELECT current_setting(:name)"), {"name": name}).scalar_one() for name in names}


def test_options_are_kept_beside_those_of_the_service(settings: Settings) -> None:
    """A dropped search_path would put the tables into another schema; a dropped timeout would keep locks."""
    options = quote(r"-c search_path=shop,public -c work_mem=8MB --random-page-cost=2 -c myapp.text=a\ b\\c")
    with _built(f"{settings.database_url}?options={options}&application_name=shop") as database:
        assert _shown(database, "search_path", "work_mem", "random_page_cost", "myapp.text", "application_name") == {
            "search_path": "shop,public",
            "work_mem": "8MB",
            "random_page_cost": "2",
            "myapp.text": r"a b\c",
            "application_name": "shop tests options",
        }
        names = "lock_timeout", "idle_in_transaction_session_timeout", "jit", "synchronous_commit", "timezone"
        assert _shown(database, *names) == {
            "synchronous_commit": "on",
            "lock_timeout": "3s",
            "idle_in_transaction_session_timeout": "5s",
            "jit": "off",
            "timezone": "UTC",
        }


def test_timeouts_of_the_connection_are_those_of_the_url(settings: Settings) -> None:
    with _built(f"{settings.database_url}?connect_timeout=7&keepalives_idle=60") as database, database.connect() as one:
        parameters = engine.driver_connection(one).info.get_parameters()

    assert (parameters["connect_timeout"], parameters["keepalives_idle"]) == ("7", "60")
    assert (parameters["keepalives_interval"], parameters["tcp_user_timeout"]) == ("2", "10000")


@pytest.mark.parametrize("form", ["of libpq", "of SQLAlchemy"])
def test_of_several_hosts_the_one_that_answers_is_used(settings: Settings, form: str) -> None:
    """As the addresses of a cluster are given; nothing listens on the first one."""
    url = make_url(settings.database_url)
    hosts = ["127.0.0.1:9", f"{url.host}:{url.port}"]
    if form == "of libpq":
        given = settings.database_url.replace(f"{url.host}:{url.port}", ",".join(hosts))
    else:
        query = {"host": hosts, "target_session_attrs": "read-write"}
        given = url._replace(host=None, port=None).update_query_dict(query).render_as_string(hide_password=False)
    with _built(given) as database:
        assert _shown(database, "port") == {"port": str(url.port)}


def test_transactions_read_what_is_committed_whatever_the_default_is(limited_url: str, admin: Engine) -> None:
    """P3: a decision reads the rows after it has locked the coupon; an older snapshot would lack some."""
    with admin.begin() as tx:
        tx.execute(text("ALTER ROLE limited SET default_transaction_isolation = 'repeatable read'"))
    with _built(limited_url) as database:
        assert _shown(database, "transaction_isolation") == {"transaction_isolation": "read committed"}
        with engine.repeatable_read(database) as tx:
            assert tx.execute(text("SHOW transaction_isolation")).scalar_one() == "repeatable read"
        assert _shown(database, "transaction_isolation") == {"transaction_isolation": "read committed"}


def _in_schema(fresh_database: Engine, name: str) -> URL:
    return fresh_database.url.update_query_dict({"options": f"-csearch_path={name}"})


def test_the_schema_of_the_search_path_is_migrated_and_used(fresh_database: Engine) -> None:
    """Also by a role that has no right in it yet. Nothing is created in `public`."""
    with fresh_database.begin() as tx:
        tx.execute(text('CREATE SCHEMA "Shop"'))
    with _built(_in_schema(fresh_database, '"Shop"')) as migrating:
        schema.migrate(migrating, "coupons")
        with migrating.begin() as tx:
            schema.require_current(tx)
            assert tx.execute(text("SELECT has_schema_privilege('coupons', 'Shop', 'USAGE')")).scalar_one()
    with fresh_database.begin() as tx:
        found = tx.execute(text("SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|inf)'")).all()

    assert {tuple(row) for row in found} == {("Shop", table) for table in [*NAMES.tables, "alembic_version"]}


def test_a_schema_that_does_not_exist_is_reported(fresh_database: Engine) -> None:
    with (
        _built(_in_schema(fresh_database, "absent")) as migrating,
        pytest.raises(Misconfigured, match=r"search_path \(absent\) names no schema that exists: create it first"),
    ):
        schema.migrate(migrating)


def test_a_plain_batch_reads_what_is_committed_whatever_the_default_is(settings: Settings) -> None:
    """Its statements after the locks would otherwise read a snapshot that is older than the locks."""
    show = PreparedStatement("show", text("SHOW transaction_isolation"))
    options = quote(r"-c default_transaction_isolation=repeatable\ read")
    with _built(f"{settings.database_url}?options={options}") as database:
        connection = Pipeline(database, [show])
        with connection.transaction():
            connection.send((BEGIN, {}), (show, {}))
            _, ((level,),) = connection.receive()

    assert level == b"read committed"


def test_after_an_error_a_plain_batch_gets_another_connection(settings: Settings) -> None:
    """After a failover the old server still answers, and refuses every write."""
    who, fail = (
        PreparedStatement("who", text("SELECT pg_backend_pid()")),
        PreparedStatement("fail", text("SELECT 1 / 0")),
    )
    seen = []
    with _built(settings.database_url) as database:
        connection = Pipeline(database, [who, fail])
        for statements in ((who,), (who, fail), (who,)):
            with suppress(DivisionByZero), connection.transaction():
                connection.send((BEGIN, {}), (who, {}))
                seen.append(connection.receive()[1])
                connection.send(*((statement, {}) for statement in statements[1:]), (COMMIT, {}))
                connection.receive()

    assert seen[0] == seen[1]
    assert seen[2] != seen[1]


def test_a_plain_batch_that_takes_too_long_is_told_apart(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read again and again at the same size: the issuer writes it the other way."""
    monkeypatch.setattr(pipeline, "TRANSACTION_SECONDS", 1)
    sleep = PreparedStatement("sleep", text("SELECT pg_sleep(3)"))
    with _built(settings.database_url) as database:
        connection = Pipeline(database, [sleep])
        with pytest.raises(TransactionTooLong):
            _execute(connection, sleep)


def _execute(connection: Pipeline, statement: PreparedStatement) -> None:
    with connection.transaction():
        connection.send((BEGIN, {}), (statement, {}), (COMMIT, {}))
        connection.receive()
