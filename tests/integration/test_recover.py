"""Held requests are tried again, given up in the end, and whoever waited behind them is served."""

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
from tests.integration.conftest import Ask, Sell
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
_ROWS = 'SELECT user_id, state, code, sequence, attempts FROM requests ORDER BY "offset"'


def test_a_retry_that_succeeds_takes_its_held_seat(sell: Sell, recoverer: Recoverer, log_id: int, ask: Ask) -> None:
    """P5: the held request gets the next sequence; those on standby hear sold_out only now."""
    held = sell(quantity=3, users=range(1, 6), faults={2: "22012 1"}).held

    recovered = recoverer.retry(log_id, held, attempts_made=1)

    assert ask(_ROWS) == [
        (1, "issued", None, 1, 1),
        (2, "issued", None, 3, 2),
        (3, "issued", None, 2, 1),
        (4, "refused", "sold_out", None, 1),
        (5, "refused", "sold_out", None, 1),
    ]
    assert (recovered.retries, recovered.has_dead_letters) == ({}, False)
    assert ask("SELECT issued, held FROM coupons") == [(3, 0)]
    assert ask("SELECT count(*) FROM retries") == [(0,)]


def test_standby_waits_while_another_seat_is_held(sell: Sell, recoverer: Recoverer, log_id: int, ask: Ask) -> None:
    """P5: with two held, the first one's success refuses nobody; the second one may still give its seat up."""
    held = sell(quantity=2, users=range(1, 4), faults={1: "22012 1", 2: "22012 2"}).held

    recovered = recoverer.retry(log_id, held, attempts_made=1)

    assert ask(_ROWS) == [
        (1, "issued", None, 1, 2),
        (2, "retrying", None, None, 2),
        (3, "standby", None, None, 0),
    ]
    assert recovered.retries == {(log_id, 2): [held[1]]}


def test_the_third_failure_is_the_last(sell: Sell, recoverer: Recoverer, log_id: int, ask: Ask) -> None:
    """P4, P5: after three attempts it is dead with its letter, and its seat goes to the lowest standby offset."""
    held = sell(quantity=2, users=range(1, 5), faults={1: "22012 9"}).held

    second = recoverer.retry(log_id, held, attempts_made=1)
    third = recoverer.retry(log_id, held, attempts_made=2)

    assert (second.retries, second.has_dead_letters) == ({(log_id, 2): held}, False)
    assert (third.retries, third.has_dead_letters) == ({}, True)
    assert ask(_ROWS) == [
        (1, "dead", "exhausted", None, 3),
        (2, "issued", None, 1, 1),
        (3, "issued", None, 2, 1),
        (4, "refused", "sold_out", None, 1),
    ]
    (letter,) = ask("SELECT code, attempts, user_id, error_type, first_error, value FROM dead_letters")
    assert (letter.code, letter.attempts, letter.user_id) == ("exhausted", 3, 1)
    assert letter.error_type == "psycopg.errors.DivisionByZero"
    assert letter.first_error.startswith("psycopg.errors.DivisionByZero: ")
    assert b'"userId":1' in letter.value
    assert ask("SELECT count(*) FROM retries") == [(0,)]
    assert ask("SELECT issued, held FROM coupons") == [(2, 0)]


def test_of_many_that_failed_together_each_ends_by_itself(
    sell: Sell, recoverer: Recoverer, log_id: int, ask: Ask
) -> None:
    """P5: those that fail again are due again, those that had their attempts are dead, the others issued, at once."""
    held = sell(quantity=9, users=range(1, 10), faults={user: f"22012 {1 + user % 3}" for user in range(1, 10)}).held

    second = recoverer.retry(log_id, held, attempts_made=1)
    third = recoverer.retry(log_id, second.retries[log_id, 2], attempts_made=2)

    assert second.retries == {(log_id, 2): [held[user - 1] for user in (1, 2, 4, 5, 7, 8)]}
    assert (third.retries, third.has_dead_letters) == ({}, True)
    assert ask(_ROWS) == [
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
    assert ask("SELECT user_id, attempts FROM dead_letters ORDER BY user_id") == [(2, 3), (5, 3), (8, 3)]
    assert ask("SELECT issued, held FROM coupons") == [(6, 0)]


def test_many_failures_leave_nothing_to_settle_where_nobody_waits(
    sell: Sell, recoverer: Recoverer, log_id: int
) -> None:
    """Step 6: a task that finds nobody would only wait for the coupon's lock."""
    users = range(1, MAX_FAILURES_PER_TRANSACTION + 1)
    held = sell(quantity=len(users), users=users, faults=dict.fromkeys(users, "22012 9")).held

    recovered = recoverer.retry(log_id, held, attempts_made=1)

    assert (len(recovered.retries[log_id, 2]), recovered.coupons_with_standby) == (MAX_FAILURES_PER_TRANSACTION, [])


def test_many_that_failed_together_are_issued_in_offset_order(
    sell: Sell, recoverer: Recoverer, log_id: int, ask: Ask
) -> None:
    """Step 6: one attempt decides all of them, in the order of the log; one that fails again costs only itself."""
    faults = dict.fromkeys(range(1, 41), "22012 1") | {17: "22012 2"}
    held = sell(quantity=50, users=range(1, 41), faults=faults).held

    recovered = recoverer.retry(log_id, held[::-1], attempts_made=1)

    assert recovered.retries == {(log_id, 2): [held[16]]}
    assert [row.sequence for row in ask(_ROWS) if row.user_id != 17] == list(range(1, 40))
    assert ask("SELECT attempts, state FROM requests WHERE user_id = 17") == [(2, "retrying")]


@pytest.mark.parametrize("fault", ["22012 1", "22012 2"], ids=["succeeds", "fails again"])
def test_two_tasks_for_the_same_attempt_make_one(
    fault: str, sell: Sell, recoverer: Recoverer, log_id: int, ask: Ask
) -> None:
    """Step 6: a message that came twice, at the same moment too, spends one attempt and issues once."""
    held = sell(quantity=9, users=range(1, 21), faults=dict.fromkeys(range(1, 10), fault)).held
    ready = Barrier(2)

    def attempt() -> None:
        ready.wait(10)
        recoverer.retry(log_id, held, attempts_made=1)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(attempt), pool.submit(attempt)]:
            done.result()
    recoverer.retry(log_id, held, attempts_made=1)

    state = "issued" if fault == "22012 1" else "retrying"
    assert ask("SELECT DISTINCT state, attempts FROM requests WHERE user_id < 10") == [(state, 2)]


def test_the_systems_failure_spends_no_attempt(
    sell: Sell, spoilt_store: Engine, log_id: int, reader: RecordReader, store: Engine, ask: Ask
) -> None:
    """Step 5: a retry that finds the database in trouble raises, and everything is as it was."""
    held = sell(quantity=1, users=range(1, 3), faults={1: "22012 1"}).held
    before = ask(_ROWS), ask("SELECT attempts, next_attempt_at FROM retries")

    @event.listens_for(spoilt_store, "begin")
    def _impatient(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")

    with store.begin() as other:
        coupons.lock(other, [1])
        with pytest.raises(Exception, match="lock timeout") as caught:
            Recoverer(spoilt_store, reader, notices=True).retry(log_id, held, attempts_made=1)

    assert classify(caught.value).failure_class is FailureClass.SYSTEM
    assert (ask(_ROWS), ask("SELECT attempts, next_attempt_at FROM retries")) == before


def test_an_attempt_decides_from_what_it_reads_under_the_lock(
    sell: Sell, recoverer: Recoverer, log_id: int, store: Engine, ask: Ask
) -> None:
    """Step 4: a retry waits for whoever decides about its coupon, and goes on from there."""
    held = sell(quantity=3, users=range(1, 2), faults={1: "22012 1"}).held

    with ThreadPoolExecutor(1) as pool, store.begin() as other:
        coupons.lock(other, [1])
        insert_request(other, 9, coupon_id=1, sequence=1)
        late = pool.submit(recoverer.retry, log_id, held, attempts_made=1)
        eventually(lambda: ask("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.commit()
        late.result()

    assert ask("SELECT state, sequence, attempts FROM requests WHERE user_id = 1") == [("issued", 2, 2)]


def test_what_follows_is_handed_off(sell: Sell, recoverer: Recoverer, log_id: int, ask: Ask) -> None:
    """Steps 4 and 8: an attempt's decisions get hand-offs of their own, of their own moment."""
    held = sell(quantity=1, users=range(1, 3), faults={1: "22012 1"}).held
    assert ask("SELECT kind FROM outbox") == []

    recoverer.retry(log_id, held, attempts_made=1)

    assert ask("SELECT kind, first_offset, last_offset FROM outbox ORDER BY 1") == [
        ("gate", 0, 1),
        ("notify", 0, 1),
    ]
    assert ask("SELECT DISTINCT decided_at FROM outbox") == ask("SELECT DISTINCT decided_at FROM requests")
