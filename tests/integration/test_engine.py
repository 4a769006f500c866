"""Who waits for an answer is told when the database has none, and only then."""

from contextlib import suppress

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from service.domain.errors import Unavailable
from service.store import engine
from tests.waiting import eventually


def _answer(built: Engine, query: str = "SELECT 1") -> object:
    with engine.in_transaction(built) as tx:
        return tx.execute(text(query)).scalar()


def test_a_database_that_is_away_is_unavailable(store: Engine) -> None:
    """Section 4: 503 and not 500 while PostgreSQL cannot be reached."""
    away = make_url(str(store.url)).set(port=9)

    with pytest.raises(Unavailable, match="PostgreSQL is unavailable"):
        _answer(engine.build(away.render_as_string(hide_password=False), "tests"))


def test_a_connection_that_was_cut_while_idle_is_made_anew(store: Engine, spoilt_store: Engine) -> None:
    """P7: the database restarts under a pool of connections, and the next caller does not notice."""
    pid = _answer(spoilt_store, "SELECT pg_backend_pid()")
    assert _answer(store, f"SELECT pg_terminate_backend({pid}, 5000)") is True

    assert _answer(spoilt_store, "SELECT pg_backend_pid()") != pid


def test_a_connection_that_is_cut_in_use_is_unavailable_and_the_next_one_is_not(store: Engine) -> None:
    """P7: the caller who was at it hears 503, and nobody after him."""
    with pytest.raises(Unavailable, match="PostgreSQL is unavailable"):
        _answer(store, "SELECT pg_terminate_backend(pg_backend_pid())")

    assert _answer(store) == 1


def test_a_pool_that_is_all_in_use_is_unavailable(store: Engine) -> None:
    """Section 4: above what the database can take a caller hears 503, within the pool's own limit."""
    one = engine.build(store.url.render_as_string(hide_password=False), "tests", connections=1)

    with one.begin(), pytest.raises(Unavailable, match="every connection is in use"):
        _answer(one)

    one.dispose()


def test_a_transaction_that_idles_is_ended_also_after_many_rows(store: Engine) -> None:
    """P7: a frozen process keeps its locks for seconds only, whatever it wrote last."""
    idles = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tests' AND state = 'idle in transaction'"
    with store.connect() as frozen:
        frozen.execute(text("SET idle_in_transaction_session_timeout = '100ms'"))
        frozen.execute(text("INSERT INTO coupons (name, quantity) VALUES (:name, 1)"), [{"name": "x"}, {"name": "y"}])
        eventually(lambda: _answer(store, idles) == 0)
        frozen.invalidate()


def test_a_fault_of_the_query_is_not_the_databases_absence(store: Engine) -> None:
    """Section 5: what no waiting can mend is not answered with "try again"."""
    with pytest.raises(IntegrityError):
        _answer(store, "INSERT INTO coupons (name, quantity) VALUES ('x', 0) RETURNING id")


def test_a_part_that_failed_leaves_neither_rows_nor_a_savepoint(store: Engine) -> None:
    """Step 5: however many records fail in a poll, the next one is no slower for them."""
    with store.begin() as tx:
        with suppress(DBAPIError), engine.savepoint(tx):
            tx.execute(text("INSERT INTO logs (topic, topic_id) VALUES ('gone', 'gone')"))
            tx.execute(text("SELECT 1/0"))
        assert tx.execute(text("SELECT count(*) FROM logs WHERE topic = 'gone'")).scalar() == 0

        with pytest.raises(DBAPIError, match="does not exist"):
            tx.execute(text("ROLLBACK TO SAVEPOINT part"))
