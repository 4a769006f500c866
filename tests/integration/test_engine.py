"""A caller gets Unavailable when the database cannot answer, and only then."""

from contextlib import ExitStack, suppress

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from service.domain.errors import Unavailable
from service.store import engine
from tests.waiting import eventually


def _scalar(database: Engine, query: str = "SELECT 1") -> object:
    with engine.in_transaction(database) as tx:
        return tx.execute(text(query)).scalar()


def test_an_unreachable_database_is_unavailable(store: Engine) -> None:
    """The API answers 503 and not 500 while PostgreSQL cannot be reached."""
    unreachable = make_url(str(store.url)).set(port=9)

    with pytest.raises(Unavailable, match="PostgreSQL is unavailable"):
        _scalar(engine.build(unreachable.render_as_string(hide_password=False), "tests"))


def test_a_connection_cut_while_idle_is_replaced(store: Engine, separate_store: Engine) -> None:
    """P7: the database restarts under a connection pool, and the next caller does not notice."""
    pid = _scalar(separate_store, "SELECT pg_backend_pid()")
    assert _scalar(store, f"SELECT pg_terminate_backend({pid}, 5000)") is True

    assert _scalar(separate_store, "SELECT pg_backend_pid()") != pid


def test_only_the_caller_of_a_cut_connection_gets_unavailable(store: Engine) -> None:
    """P7: the caller that used the connection gets 503, and no later one."""
    with pytest.raises(Unavailable, match="PostgreSQL is unavailable"):
        _scalar(store, "SELECT pg_terminate_backend(pg_backend_pid())")

    assert _scalar(store) == 1


def test_an_exhausted_connection_pool_is_unavailable(store: Engine) -> None:
    """Above the database's capacity a caller gets 503 within the pool's own limit."""
    database = engine.build(store.url.render_as_string(hide_password=False), "tests", connections=1)

    with database.begin(), pytest.raises(Unavailable, match="all connections of this process are in use"):
        _scalar(database)

    database.dispose()


def test_an_idle_transaction_is_ended_after_many_rows_too(store: Engine) -> None:
    """P7: a frozen process keeps its locks for seconds only, whatever its last statement was."""
    count_idle = (
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tests' AND state = 'idle in transaction'"
    )
    with store.connect() as frozen:
        frozen.execute(text("SET idle_in_transaction_session_timeout = '100ms'"))
        frozen.execute(text("INSERT INTO coupons (name, quantity) VALUES (:name, 1)"), [{"name": "x"}, {"name": "y"}])
        eventually(lambda: _scalar(store, count_idle) == 0)
        frozen.invalidate()


def test_an_error_of_the_query_is_not_unavailable(store: Engine) -> None:
    """An error that no waiting removes is not answered with "try again"."""
    with pytest.raises(IntegrityError):
        _scalar(store, "INSERT INTO coupons (name, quantity) VALUES ('x', 0) RETURNING id")


def test_a_failed_part_leaves_no_rows_and_no_savepoint(store: Engine) -> None:
    """However many records of a batch fail, the next one is not slower."""
    with store.begin() as tx:
        with suppress(DBAPIError), engine.savepoint(tx):
            tx.execute(text("INSERT INTO logs (topic, topic_id, adopted_by) VALUES ('gone', 'gone', 'x')"))
            tx.execute(text("SELECT 1/0"))
        assert tx.execute(text("SELECT count(*) FROM logs WHERE topic = 'gone'")).scalar() == 0

        with pytest.raises(DBAPIError, match="does not exist"):
            tx.execute(text("ROLLBACK TO SAVEPOINT part"))


def _backends(store: Engine) -> set[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE usename = 'limited'"
    with store.begin() as tx:
        return set(tx.execute(text(query)).scalars())


def _fill_pool(database: Engine, connections: int) -> None:
    """Open so many connections at the same time, which the pool then keeps."""
    with ExitStack() as opened:
        for _ in range(connections):
            opened.enter_context(database.connect()).execute(text("SELECT 1"))


@pytest.mark.parametrize(
    ("refusal", "grant"),
    [
        ("ALTER ROLE limited SET default_transaction_read_only = on", "ALTER ROLE limited RESET ALL"),
        ("REVOKE ALL ON logs FROM limited", "GRANT ALL ON logs TO limited"),
    ],
    ids=["read-only", "no permission"],
)
def test_a_refused_write_ends_every_connection_of_the_pool(
    store: Engine, admin: Engine, limited_url: str, refusal: str, grant: str
) -> None:
    """P7: after a failover no pooled connection stays with a server that cannot write, also one that only reads."""
    database = engine.build(f"{limited_url}?target_session_attrs=any", "tests", connections=3)
    with admin.begin() as tx:
        tx.execute(text("GRANT ALL ON logs TO limited"))
        tx.execute(text(refusal))
    _fill_pool(database, connections=3)
    refusing = _backends(store)

    with pytest.raises(Unavailable, match=r"read-only transaction|refuses a right"):
        _scalar(database, "DELETE FROM logs RETURNING id")
    with admin.begin() as tx:
        tx.execute(text(grant))
    assert _scalar(database, "DELETE FROM logs RETURNING id") is None
    _fill_pool(database, connections=3)

    assert len(refusing) == 3
    assert not _backends(store) & refusing
    database.dispose()


@pytest.mark.usefixtures("store")
def test_a_connection_that_only_reads_leaves_a_read_only_server(admin: Engine, separate_store: Engine) -> None:
    """P5: after a failover a look-up does not show what the old primary knew."""
    _fill_pool(separate_store, connections=2)
    with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET default_transaction_read_only = on"))
        connection.execute(text("SELECT pg_reload_conf()"))
        try:
            eventually(lambda: _refusal(separate_store) and "session is read-only" in _refusal(separate_store))
        finally:
            connection.execute(text("ALTER SYSTEM RESET default_transaction_read_only"))
            connection.execute(text("SELECT pg_reload_conf()"))

    eventually(lambda: not _refusal(separate_store))


def _refusal(database: Engine) -> str:
    """Return why a read fails, or an empty text."""
    try:
        _scalar(database)
    except Unavailable as error:
        return str(error)
    return ""


def test_a_server_that_only_reads_is_not_connected_to(admin: Engine, limited_url: str) -> None:
    """P7: during a failover the old address may still lead to a replica."""
    with admin.begin() as tx:
        tx.execute(text("ALTER ROLE limited SET default_transaction_read_only = on"))
    database = engine.build(limited_url, "tests")

    with pytest.raises(Unavailable, match="session is read-only"):
        _scalar(database)

    database.dispose()
