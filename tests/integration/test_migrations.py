"""The schema's revisions: they say what the tables say, go both ways, and may be applied by several at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, inspect, text

from service.domain.errors import Misconfigured
from service.domain.request import RequestState
from service.domain.request_id import RequestIds
from service.store import retries, schema
from service.store.tables import NAMES
from service.stream.codec import RecordReader
from service.usecases.recover import Recoverer
from tests.builders import AT_MS, insert_request


@pytest.fixture
def connection(fresh_database: Engine) -> Iterator[Connection]:
    """A transaction in an empty database."""
    with fresh_database.begin() as opened:
        yield opened


def test_the_tables_are_what_the_revisions_make(connection: Connection) -> None:
    """Section 6: models and migrations do not drift apart."""
    config = schema._config(connection)
    command.upgrade(config, "head")

    command.check(config)


_SHAPES = (
    (
        "SELECT table_name, column_name, data_type, is_nullable, column_default, identity_generation"
        " FROM information_schema.columns WHERE table_schema = '{schema}'"
    ),
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = '{schema}'::regnamespace",
    "SELECT indexname, replace(indexdef, '{schema}.', '') FROM pg_indexes WHERE schemaname = '{schema}'",
)


def _shape(connection: Connection, schema_name: str) -> set[str]:
    """Columns, constraints and indexes of a schema, as the database says them itself."""
    rows = [row for query in _SHAPES for row in connection.execute(text(query.format(schema=schema_name)))]
    return {str(row).replace(f"{schema_name}.", "") for row in rows if "alembic_version" not in str(row)}


def test_no_check_or_default_differs_either(connection: Connection) -> None:
    """Section 6: what Alembic does not compare is compared with tables made from the models alone."""
    command.upgrade(schema._config(connection), "head")
    connection.execute(text("CREATE SCHEMA models"))
    connection.execute(text("SET LOCAL search_path = models"))
    NAMES.create_all(connection)
    connection.execute(text("SET LOCAL search_path = public"))

    assert _shape(connection, "models") == _shape(connection, "public")


def test_every_revision_can_be_taken_back_and_applied_again(connection: Connection) -> None:
    """Section 6: a downgrade leaves nothing behind, and after it the same schema comes up again."""
    config = schema._config(connection)
    command.upgrade(config, "head")

    command.downgrade(config, "base")

    left = set(inspect(connection).get_table_names()) - {"alembic_version"}
    assert left == set()
    assert connection.execute(text("SELECT count(*) FROM pg_proc WHERE proname LIKE '%requests'")).scalar() == 0
    command.upgrade(config, "head")
    schema.require_current(connection)


def test_who_is_on_standby_while_the_schema_changes_is_not_forgotten(
    fresh_database: Engine, ids: RequestIds, reader: RecordReader
) -> None:
    """P4: without a record of its own at 0002, he is promoted like any other, also after there and back again."""
    with fresh_database.begin() as tx:
        config = schema._config(tx)
        command.upgrade(config, "0002")
        tx.execute(text("INSERT INTO coupons (name, quantity) VALUES ('a coupon', 1)"))
        insert_request(tx, 9, coupon_id=1, user_id=7, state=RequestState.STANDBY)
        tx.execute(text("UPDATE requests SET request_id = :id, partition = 3"), {"id": ids.mint(1, 7, AT_MS)})
        for revision in ("head", "0002", "head"):
            getattr(command, "downgrade" if revision == "0002" else "upgrade")(config, revision)
        _, (held,) = retries.first_standby(tx, 1, 10)

    assert reader.decode(held.raw).request == held.request._replace(appended_at_ms=held.raw.appended_at_ms)
    assert Recoverer(fresh_database, reader, notices=True).decide_standby(1).coupons_with_standby == []
    with fresh_database.begin() as tx:
        assert tx.execute(text("SELECT state, sequence FROM requests")).all() == [("issued", 1)]


_FUNCTIONS = (
    "SELECT proname, prosrc FROM pg_proc WHERE proname = ANY(ARRAY['count_updated_requests', 'failing_requests'])"
)


def test_a_database_of_an_earlier_revision_gets_the_functions_of_today(connection: Connection) -> None:
    """P1: whatever they were like there."""
    config = schema._config(connection)
    command.upgrade(config, "head")
    today = connection.execute(text(_FUNCTIONS)).all()
    command.downgrade(config, "0005")
    nothing = "LANGUAGE plpgsql AS $$ BEGIN END $$"
    connection.execute(text(f"CREATE OR REPLACE FUNCTION count_updated_requests() RETURNS trigger {nothing}"))
    connection.execute(
        text(
            "CREATE OR REPLACE FUNCTION failing_requests(tries jsonb)"
            f" RETURNS TABLE (number int, code text, message text, detail text) {nothing}"
        )
    )

    command.upgrade(config, "head")

    assert connection.execute(text(_FUNCTIONS)).all() == today
    assert len(today) == 2


def test_several_may_migrate_at_once(fresh_database: Engine) -> None:
    """P7: processes that start together bring the schema up together."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(schema.migrate, fresh_database) for _ in range(4)]:
            done.result()

    with fresh_database.begin() as tx:
        schema.require_current(tx)


def test_a_schema_of_another_age_is_told(connection: Connection) -> None:
    """A process does not work on tables that it was not written for; it says which command helps."""
    command.upgrade(schema._config(connection), "0001")

    with pytest.raises(Misconfigured, match=r"is at 0001, .* is needed: run `coupons migrate`"):
        schema.require_current(connection)
