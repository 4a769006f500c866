"""Held requests are retried and finally become dead; then standby requests behind them are decided."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import Connection, Engine, event

from service.domain.coupon import Coupon
from service.domain.failures import FailureClass, classify
from service.store import coupons
from service.stream.codec import RecordReader
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.recover import Recoverer
from tests.builders import insert_request
from tests.integration.conftest import Query, StartSale
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
_ROWS = 'SELECT user_id, state, code, sequence, attempts FROM requests ORDER BY "offset"'


def test_a_successful_retry_uses_its_held_seat(
    start_sale: StartSale, recoverer: Recoverer, log_id: int, query: Query
) -> None:
    """P5: the held request gets the next sequence; only now is standby refused sold_out."""
    held = start_sale(quantity=3, users=range(1, 6), faults={2: "22012 1"}).held

    recovered = recoverer.retry(log_id, held, attempts_made=1)

    assert query(_ROWS) == [
        (1, "issued", None, 1, 1),
        (2, "issued", None, 3, 2),
        (3, "issued", None, 2, 1),
        (4, "refused", "sold_out", None, 1),
        (5, "refused", "sold_out", None, 1),
    ]
    assert (recovered.retries, recovered.has_dead_letters) == ({}, False)
    assert query("SELECT issued, held FROM coupons") == [(3, 0)]
    assert query("SELECT count(*) FROM retries") == [(0,)]


def test_standby_waits_while_another_seat_is_held(
    start_sale: StartSale, recoverer: Recoverer, log_id: int, query: Query
) -> None:
    """P5: of two held requests the first succeeds; standby waits, since the second may still give its seat up."""
    held = start_sale(quantity=2, users=range(1, 4), faults={1: "22012 1", 2: "22012 2"}).held

    recovered = recoverer.retry(log_id, held, attempts_made=1)

    assert query(_ROWS) == [
        (1, "issued", None, 1, 2),
        (2, "retrying", None, None, 2),
        (3, "standby", None, None, 0),
    ]
    assert recovered.retries == {(log_id, 2): [held[1]]}


def test_after_the_third_failure_a_request_is_dead(
    start_sale: StartSale, recoverer: Recoverer, log_id: int, query: Query
) -> None:
    """P4, P5: the request has a dead letter, and its seat goes to the lowest standby offset."""
    held = start_sale(quantity=2, users=range(1, 5), faults={1: "22012 9"}).held

    second = recoverer.retry(log_id, held, attempts_made=1)
    third = recoverer.retry(log_id, held, attempts_made=2)

    assert (second.retries, second.has_dead_letters) == ({(log_id, 2): held}, False)
    assert (third.retries, third.has_dead_letters) == ({}, True)
    assert query(_ROWS) == [
        (1, "dead", "exhausted", None, 3),
        (2, "issued", None, 1, 1),
        (3, "issued", None, 2, 1),
        (4, "refused", "sold_out", None, 1),
    ]
    (dead_letter,) = query("SELECT code, attempts, user_id, error_type, first_error, value FROM dead_letters")
    assert (dead_letter.code, dead_letter.attempts, dead_letter.user_id) == ("exhausted", 3, 1)
    assert dead_letter.error_type == "psycopg.errors.DivisionByZero"
    assert dead_letter.first_error.startswith("psycopg.errors.DivisionByZero: ")
    assert b'"userId":1' in dead_letter.value
    assert query("SELECT count(*) FROM retries") == [(0,)]
    assert query("SELECT issued, held FROM coupons") == [(2, 0)]


def test_requests_of_one_retry_end_independently(
    start_sale: StartSale, recoverer: Recoverer, log_id: int, query: Query
) -> None:
    """P5: one retry issues some requests, holds some for another attempt, and makes the others dead."""
    held = start_sale(
        quantity=9, users=range(1, 10), faults={user: f"22012 {1 + user % 3}" for user in range(1, 10)}
    ).held

    second = recoverer.retry(log_id, held, attempts_made=1)
    third = recoverer.retry(log_id, second.retries[log_id, 2], attempts_made=2)

    assert second.retries == {(log_id, 2): [held[user - 1] for user in (1, 2, 4, 5, 7, 8)]}
    assert (third.retries, third.has_dead_letters) == ({}, True)
    assert query(_ROWS) == [
        (1, "issued", None, 4, 3),
        (2, "dead", "exhausted", None, 3),
        (3, "issued", None, 1, 2),
        (4, "issued", None, 5, 3),
        (5, "dead", "exhausted", None, 3),
        (6, "issued", None, 2, 2),
        (7, "issued", None, 6, 3),
        (8, "dead", "exhausted", None, 3),
        (9, "issued", None, 3, 2),
    ]
    assert query("SELECT user_id, attempts FROM dead_letters ORDER BY user_id") == [(2, 3), (5, 3), (8, 3)]
    assert query("SELECT issued, held FROM coupons") == [(6, 0)]


def test_many_failures_announce_no_standby_where_there_is_none(
    start_sale: StartSale, recoverer: Recoverer, log_id: int
) -> None:
    """A task that decides standby where there is none would only wait for the coupon's lock."""
    users = range(1, MAX_FAILURES_PER_TRANSACTION + 1)
    held = start_sale(quantity=len(users), users=users, faults=dict.fromkeys(users, "22012 9")).held

    recovered = recoverer.retry(log_id, held, attempts_made=1)

    assert (len(recovered.retries[log_id, 2]), recovered.coupons_with_standby) == (MAX_FAILURES_PER_TRANSACTION, [])


def test_one_retry_issues_many_requests_in_offset_order(
    start_sale: StartSale, recoverer: Recoverer, log_id: int, query: Query
) -> None:
    """P3: one retry decides all requests in offset order; a request that fails again affects only itself."""
    faults = dict.fromkeys(range(1, 41), "22012 1") | {17: "22012 2"}
    held = start_sale(quantity=50, users=range(1, 41), faults=faults).held

    recovered = recoverer.retry(log_id, held[::-1], attempts_made=1)

    assert recovered.retries == {(log_id, 2): [held[16]]}
    assert [row.sequence for row in query(_ROWS) if row.user_id != 17] == list(range(1, 40))
    assert query("SELECT attempts, state FROM requests WHERE user_id = 17") == [(2, "retrying")]


@pytest.mark.parametrize("fault", ["22012 1", "22012 2"], ids=["succeeds", "fails again"])
def test_two_tasks_for_the_same_attempt_count_one_attempt(
    fault: str, start_sale: StartSale, recoverer: Recoverer, log_id: int, query: Query
) -> None:
    """P2: a message that is delivered twice, even at the same moment, uses one attempt and issues once."""
    held = start_sale(quantity=9, users=range(1, 21), faults=dict.fromkeys(range(1, 10), fault)).held
    ready = Barrier(2)

    def retry() -> None:
        ready.wait(10)
        recoverer.retry(log_id, held, attempts_made=1)

    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(retry), pool.submit(retry)]:
            task.result()
    recoverer.retry(log_id, held, attempts_made=1)

    state = "issued" if fault == "22012 1" else "retrying"
    assert query("SELECT DISTINCT state, attempts FROM requests WHERE user_id < 10") == [(state, 2)]


def test_a_system_failure_uses_no_attempt(
    start_sale: StartSale, separate_store: Engine, log_id: int, reader: RecordReader, store: Engine, query: Query
) -> None:
    """A retry that finds the database in trouble raises and changes nothing."""
    held = start_sale(quantity=1, users=range(1, 3), faults={1: "22012 1"}).held
    before = query(_ROWS), query("SELECT attempts, next_attempt_at FROM retries")

    @event.listens_for(separate_store, "begin")
    def _set_lock_timeout(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")

    with store.begin() as other:
        coupons.lock(other, [1])
        with pytest.raises(Exception, match="lock timeout") as caught:
            Recoverer(separate_store, reader, notices=True).retry(log_id, held, attempts_made=1)

    assert classify(caught.value).failure_class is FailureClass.SYSTEM
    assert (query(_ROWS), query("SELECT attempts, next_attempt_at FROM retries")) == before


def test_a_retry_decides_from_rows_read_under_the_lock(
    start_sale: StartSale, recoverer: Recoverer, log_id: int, store: Engine, query: Query
) -> None:
    """A retry waits for another writer of its coupon, then decides from what it wrote."""
    held = start_sale(quantity=3, users=range(1, 2), faults={1: "22012 1"}).held

    with ThreadPoolExecutor(1) as pool, store.begin() as other:
        coupons.lock(other, [1])
        insert_request(other, 9, coupon_id=1, sequence=1)
        retrying = pool.submit(recoverer.retry, log_id, held, attempts_made=1)
        eventually(lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.commit()
        retrying.result()

    assert query("SELECT state, sequence, attempts FROM requests WHERE user_id = 1") == [("issued", 2, 2)]


def test_a_retry_writes_outbox_entries_for_its_decisions(
    start_sale: StartSale, recoverer: Recoverer, log_id: int, query: Query
) -> None:
    """P4: the entries of a retry have the time of its own decisions."""
    held = start_sale(quantity=1, users=range(1, 3), faults={1: "22012 1"}).held
    assert query("SELECT kind FROM outbox") == []

    recoverer.retry(log_id, held, attempts_made=1)

    assert query("SELECT kind, first_offset, last_offset FROM outbox ORDER BY 1") == [
        ("gate", 0, 1),
        ("notify", 0, 1),
    ]
    assert query("SELECT DISTINCT decided_at FROM outbox") == query("SELECT DISTINCT decided_at FROM requests")
