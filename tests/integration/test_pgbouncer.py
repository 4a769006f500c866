"""PostgreSQL behind PgBouncer: what the service relies on holds in every transaction, or no process starts."""

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, make_url, text

from service.cancellation import Cancellation
from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.errors import Cancelled, Unavailable, UnsupportedConnection
from service.domain.finding import Part, Verdict
from service.domain.request_id import RequestIds
from service.resources import open_doctor, open_engine
from service.store import engine, schema
from service.stream.codec import RecordReader
from service.verification.verify import Verifier
from stack.certificates import Authority
from stack.local import LocalStack
from tests.fixtures.commands import Run
from tests.fixtures.pgbouncer import (
    SESSION_POOLING,
    TRANSACTION_POOLING,
    PgBouncer,
    keeps_prepared_statements,
    passwords_of,
    pgbouncer,
)
from tests.log import Log
from tests.waiting import eventually

_SHOWN = {
    "lock_timeout": "3s",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "5s",
    "timezone": "UTC",
    "plan_cache_mode": "force_custom_plan",
    "random_page_cost": "1.1",
    "jit": "off",
    "transaction_isolation": "read committed",
}


@contextmanager
def _before(parts: LocalStack, settings: Mapping[str, str]) -> Iterator[PgBouncer]:
    port = make_url(parts.database_url).port
    assert port
    with pgbouncer(port, passwords_of(parts), settings) as running:
        yield running


@pytest.fixture(scope="module")
def pooling(parts: LocalStack) -> Iterator[PgBouncer]:
    """Transaction pooling with two connections to the server, so that transactions change them all the time."""
    with _before(parts, {**TRANSACTION_POOLING, "default_pool_size": "2"}) as running:
        yield running


@pytest.fixture(scope="module")
def dropping(parts: LocalStack) -> Iterator[PgBouncer]:
    """Transaction pooling that drops the settings of a connection without an error."""
    with _before(parts, {**TRANSACTION_POOLING, "ignore_startup_parameters": "options"}) as running:
        yield running


@contextmanager
def _engine(url: str, connections: int = 5, *, pooler: bool = True) -> Iterator[Engine]:
    built = engine.build(url, "tests pooled", connections, pooler=pooler, prepare=not pooler)
    try:
        yield built
    finally:
        built.dispose()


@pytest.fixture
def pooled(settings: Settings, pooling: PgBouncer, store: Engine) -> Iterator[Engine]:
    """The emptied database behind PgBouncer."""
    del store
    with _engine(pooling.url(settings.database_url)) as built:
        yield built


def _scalar(database: Engine, query: str) -> object:
    with engine.in_transaction(database) as tx:
        return tx.execute(text(query)).scalar()


def test_a_pooler_that_drops_the_timeouts_is_refused(settings: Settings, dropping: PgBouncer) -> None:
    """P7: the locks of a frozen process would remain. The message says what to set."""
    expected = r"the server did not take the settings .*lock_timeout.*: set DATABASE_POOLER=true"
    with (
        _engine(dropping.url(settings.database_url), pooler=False) as built,
        pytest.raises(UnsupportedConnection, match=expected),
    ):
        _scalar(built, "SELECT 1")


def test_a_pooler_that_refuses_the_timeouts_is_named(settings: Settings, pooling: PgBouncer) -> None:
    """Its own message, "unsupported startup parameter", says nothing about what to do."""
    expected = r"a connection pooler answers \(.*unsupported startup parameter.*\): set DATABASE_POOLER=true"
    with (
        _engine(pooling.url(settings.database_url), pooler=False) as built,
        pytest.raises(UnsupportedConnection, match=expected),
    ):
        _scalar(built, "SELECT 1")


def test_a_pooler_that_drops_nothing_is_recognized(settings: Settings, dropping: PgBouncer) -> None:
    """Timeouts may be set for the role; prepared statements would still meet those of other clients."""
    with _engine(dropping.url(settings.database_url)) as built, built.connect() as connection:
        driver = engine.driver_connection(connection)
        driver.rollback()
        with pytest.raises(UnsupportedConnection, match="a connection pooler answers: set DATABASE_POOLER=true"):
            engine._require_settings(driver, {}, "DATABASE_URL")
        connection.invalidate()


def test_no_process_starts_behind_a_pooler_that_it_is_not_told_about(
    settings: Settings, dropping: PgBouncer, run: Run, log_id: int
) -> None:
    """It ends with the reason, and does not wait for another answer; the password is not printed."""
    del log_id
    url = dropping.url(settings.database_url)
    refused = run("coupon", "list", DATABASE_URL=url)
    accepted = run("coupon", "list", DATABASE_URL=url, DATABASE_POOLER="true")

    assert (refused.returncode, accepted.returncode) == (2, 0), accepted.stderr
    assert refused.stderr.startswith("error: DATABASE_URL: the server did not take the settings ")
    assert str(make_url(url).password) not in refused.stderr
    with open_doctor(settings.model_copy(update={"database_url": url})) as doctor:
        (found,) = [one for one in doctor.examine() if one.part is Part.POSTGRESQL]
    assert found.verdict is Verdict.FAILED
    assert "set DATABASE_POOLER=true for all processes" in found.found


@pytest.mark.parametrize("kind", ["dropping", "pooling"])
def test_the_migration_names_its_own_address(
    kind: str, settings: Settings, parts: LocalStack, run: Run, request: pytest.FixtureRequest
) -> None:
    """The role that owns the schema may have a pooler where the service has none."""
    url = request.getfixturevalue(kind).url(parts.environment["MIGRATE_DATABASE_URL"])
    refused = run("migrate", MIGRATE_DATABASE_URL=url)

    assert refused.returncode == 2
    assert refused.stderr.startswith("error: MIGRATE_DATABASE_URL: ")
    assert "set DATABASE_POOLER=true" in refused.stderr
    assert str(make_url(settings.database_url).password) not in refused.stderr


def test_each_transaction_has_every_setting_and_leaves_none(
    settings: Settings, pooling: PgBouncer, pooled: Engine
) -> None:
    """P7, also for what the URL sets, whichever of the server's sessions a transaction gets."""
    url = f"{pooling.url(settings.database_url)}?options=-csearch_path%3Dshop,public%20-cwork_mem%3D8MB"
    with _engine(url) as custom, custom.connect() as first, custom.connect() as second:
        for tx in (first, second):
            found = {name: tx.execute(text(f"SHOW {name}")).scalar() for name in (*_SHOWN, "search_path", "work_mem")}
            assert found == {**_SHOWN, "search_path": "shop,public", "work_mem": "8MB"}
        assert len({tx.execute(text("SELECT pg_backend_pid()")).scalar() for tx in (first, second)}) == 2

    assert _scalar(pooled, "SHOW search_path") == '"$user", public'
    assert _scalar(pooled, "SHOW lock_timeout") == "3s"
    with pooled.connect() as connection:
        driver = engine.driver_connection(connection)
        driver.autocommit = True
        assert driver.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_a_transaction_that_hangs_loses_its_locks(
    pooled: Engine, make_coupon: Callable[..., Coupon], store: Engine
) -> None:
    """P7: what a frozen process has locked can be changed by others after some seconds."""
    coupon = make_coupon()
    lock = text("SELECT 1 FROM coupons WHERE id = :id FOR UPDATE")
    with pooled.connect() as frozen:
        frozen.execute(lock, {"id": coupon.id})

        def can_lock() -> bool:
            with store.begin() as tx:
                return bool(tx.execute(lock, {"id": coupon.id}).scalar())

        eventually(can_lock, within_seconds=10)
        frozen.invalidate()


def test_statements_of_many_connections_do_not_meet(settings: Settings, pooling: PgBouncer) -> None:
    """The driver would prepare a repeated statement under a name that another connection uses as well."""
    with _engine(pooling.url(settings.database_url), connections=6) as built, ThreadPoolExecutor(6) as pool:
        barrier = threading.Barrier(6)

        def repeat(number: int) -> list[object]:
            barrier.wait(10)
            return [_scalar(built, f"SELECT {number} + {again % 2}") for again in range(20)]

        assert [sum(map(int, results)) for results in pool.map(repeat, range(6))] == [  # type: ignore[arg-type]
            20 * number + 10 for number in range(6)
        ]


@pytest.mark.parametrize(
    "pooling_mode",
    [
        SESSION_POOLING,
        pytest.param(
            {**TRANSACTION_POOLING, "default_pool_size": "2", "max_prepared_statements": "50"},
            marks=pytest.mark.skipif(not keeps_prepared_statements(), reason="it needs PgBouncer 1.22 or newer"),
        ),
    ],
    ids=["session", "transaction"],
)
def test_statements_are_prepared_behind_a_pooler_that_keeps_them(
    pooling_mode: Mapping[str, str], settings: Settings, parts: LocalStack
) -> None:
    """DATABASE_PREPARE=true; each transaction sets its timeouts all the same, and the server has the statements."""
    with _before(parts, pooling_mode) as running:
        chosen = settings.model_copy(
            update={
                "database_url": running.url(settings.database_url),
                "database_pooler": True,
                "database_prepare": True,
            }
        )
        with open_engine(chosen, "tests prepared", connections=4) as built, ThreadPoolExecutor(4) as pool:

            def repeat(number: int) -> list[object]:
                return [_scalar(built, f"SELECT {number} + {again % 2}") for again in range(20)]

            assert [sum(map(int, results)) for results in pool.map(repeat, range(4))] == [  # type: ignore[arg-type]
                20 * number + 10 for number in range(4)
            ]
            for _ in range(10):
                kept = _scalar(built, "SELECT count(*) FROM pg_prepared_statements")
            assert int(str(kept)) > 0
            assert _scalar(built, "SHOW lock_timeout") == "3s"


def test_a_statement_can_be_cancelled(pooled: Engine) -> None:
    """PgBouncer forwards the cancel request to the session that executes the statement."""
    cancellation = Cancellation()
    timer = threading.Timer(0.2, cancellation.request)
    timer.start()
    with pytest.raises(Cancelled), engine.in_transaction(pooled) as tx, engine.cancellable(tx, cancellation):
        tx.execute(text("SELECT pg_sleep(4)"))
    timer.join()


def test_a_server_that_only_reads_is_not_used(limited_url: str, pooling: PgBouncer, admin: Engine) -> None:
    """P5, P7: a pooler reports what its first server said, so each transaction asks."""
    with admin.begin() as tx:
        tx.execute(text("ALTER ROLE limited SET default_transaction_read_only = on"))
    with _engine(pooling.url(limited_url)) as built, pytest.raises(Unavailable, match="session is read-only"):
        _scalar(built, "SELECT 1")


def test_the_proof_and_the_migration_work_over_a_pooler(
    settings: Settings,
    pooled: Engine,
    pooling: PgBouncer,
    parts: LocalStack,
    real_log: Log,
    ids: RequestIds,
    reader: RecordReader,
) -> None:
    """Temporary tables and locks end with their transaction; the proof's snapshot is of one moment."""
    del real_log  # the topic, without the records of other tests
    with _engine(pooling.url(parts.environment["MIGRATE_DATABASE_URL"])) as migrating:
        schema.migrate(migrating, "coupons")

    assert [check for check in Verifier(settings, pooled, ids, reader).verify() if not check.ok] == []
    with engine.repeatable_read(pooled) as tx:
        assert tx.execute(text("SHOW transaction_isolation")).scalar() == "repeatable read"


def test_a_unix_socket_is_used(settings: Settings, pooling: PgBouncer) -> None:
    with _engine(pooling.socket_url(settings.database_url)) as built:
        assert _scalar(built, "SELECT 1") == 1
        with built.connect() as connection:
            assert engine.driver_connection(connection).info.host == str(pooling.socket_directory)


def test_the_certificate_of_the_server_is_checked(settings: Settings, parts: LocalStack, tmp_path: Path) -> None:
    """sslmode=verify-full with the authority that signed it connects; with another one, or without, nothing does."""
    right, wrong = (Authority.load_or_create(tmp_path / name, name) for name in ("right", "wrong"))
    server = right.issue("pgbouncer")
    tls = {
        **TRANSACTION_POOLING,
        "client_tls_sslmode": "require",
        "client_tls_key_file": str(server.key_file),
        "client_tls_cert_file": str(server.certificate_file),
    }
    with _before(parts, tls) as running:
        url = running.url(settings.database_url)
        with _engine(f"{url}?sslmode=verify-full&sslrootcert={right.certificate_file}") as built:
            assert _scalar(built, "SELECT 1") == 1
        for options, reason in {
            f"sslmode=verify-full&sslrootcert={wrong.certificate_file}": "certificate verify failed",
            f"sslmode=verify-full&sslrootcert={tmp_path}/absent": "does not exist",
            "sslmode=disable": "SSL required",
        }.items():
            with _engine(f"{url}?{options}") as built, pytest.raises(Unavailable, match=reason):
                _scalar(built, "SELECT 1")
