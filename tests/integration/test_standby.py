"""Standby is a queue: free seats go to the lowest offset, whose write may fail too, and no request overtakes."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from service.domain.coupon import Coupon
from service.domain.request import LogPosition
from service.usecases import recover
from service.usecases.coupons import CouponService
from service.usecases.recover import Recoverer
from tests.integration.conftest import Query, RetryHeld, StartSale

MakeCoupon = Callable[..., Coupon]
_ROWS = 'SELECT user_id, state, code, sequence, attempts FROM requests ORDER BY "offset"'
_COUNTERS = "SELECT issued, held, standby FROM coupons"


def test_a_promoted_request_whose_write_fails_is_held(
    start_sale: StartSale, retry_held: RetryHeld, query: Query
) -> None:
    """P5: user 2 gets the seat of the dead request and fails once; user 3 stays on standby and is refused."""
    start_sale(quantity=1, users=range(1, 4), faults={1: "22012 9", 2: "22012 1"})
    assert query(_COUNTERS) == [(0, 1, 2)]

    retry_held(1)
    retry_held(2)

    assert query(_ROWS) == [
        (1, "dead", "exhausted", None, 3),
        (2, "retrying", None, None, 1),
        (3, "standby", None, None, 0),
    ]
    assert query(_COUNTERS) == [(0, 1, 1)]

    retry_held(1)

    assert query(_ROWS)[1:] == [(2, "issued", None, 1, 2), (3, "refused", "sold_out", None, 1)]
    assert query(_COUNTERS) == [(1, 0, 0)]
    assert query("SELECT count(*) FROM retries") == [(0,)]


def test_a_seat_passes_from_each_dead_request_to_the_next(
    start_sale: StartSale, retry_held: RetryHeld, query: Query
) -> None:
    """P5: two requests become dead one after the other with all their attempts, and the third is issued."""
    start_sale(quantity=1, users=range(1, 5), faults={1: "22012 9", 2: "22012 9"})

    for _ in range(2):
        retry_held(1)
        retry_held(2)

    assert [row.state for row in query(_ROWS)] == ["dead", "dead", "issued", "refused"]
    assert query("SELECT attempts, user_id FROM dead_letters ORDER BY id") == [(3, 1), (3, 2)]


def test_a_large_standby_is_decided_in_several_transactions(
    start_sale: StartSale, recoverer: Recoverer, retry_held: RetryHeld, query: Query, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3, P5: each transaction continues in order where the one before ended."""
    monkeypatch.setattr(recover, "STANDBY_BATCH_SIZE", 3)
    coupon = start_sale(quantity=1, users=range(1, 10), faults={1: "22012 1"}).coupon

    retry_held(1)
    assert query(_COUNTERS) == [(1, 0, 5)]
    assert recoverer.decide_standby(coupon.id).coupons_with_standby == [coupon.id]
    while recoverer.decide_standby(coupon.id).coupons_with_standby:
        pass

    assert query(_COUNTERS) == [(1, 0, 0)]
    assert [row.state for row in query(_ROWS)] == ["issued", *["refused"] * 8]
    assert recoverer.decide_standby(coupon.id).outbox_kinds == set()


def test_each_decision_is_in_one_outbox_entry(start_sale: StartSale, retry_held: RetryHeld, query: Query) -> None:
    """P4: a transaction that makes requests dead, promotes and refuses announces each decision once."""
    start_sale(quantity=2, users=range(1, 8), faults={1: "22012 9"})

    retry_held(1)
    retry_held(2)

    entries_per_offset = query(
        "SELECT requests.\"offset\", count(*) FROM requests JOIN outbox ON kind = 'notify'"
        " AND outbox.decided_at = requests.decided_at AND requests.partition = outbox.partition"
        ' AND "offset" BETWEEN first_offset AND last_offset GROUP BY 1 ORDER BY 1'
    )
    assert entries_per_offset == [(offset, 1) for offset in range(7)]


def test_requests_held_in_an_earlier_life_of_the_topic_are_decided(
    start_sale: StartSale, recoverer: Recoverer, query: Query, admin: Engine
) -> None:
    """P4: rows of a topic that was deleted and created again are retried by their own log_id."""
    start_sale(quantity=1, users=range(1, 3), faults={1: "22012 9"})
    query(
        "INSERT INTO logs (topic, topic_id, adopted_by, closed_at)"
        " VALUES ('ISSUE_COUPON', 'another life', 'tests', now()) RETURNING id"
    )
    with admin.begin() as tx:
        for table in ("retries", "requests"):
            tx.execute(text(f"UPDATE {table} SET log_id = 2"))

    for attempts_made in (1, 2):
        rows = query('SELECT partition, "offset" FROM retries WHERE attempts = :made', made=attempts_made)
        assert rows
        recoverer.retry(2, [LogPosition(row.partition, row.offset) for row in rows], attempts_made)

    assert [row.state for row in query(_ROWS)] == ["dead", "issued"]


def test_failing_promotions_end_a_transaction_early(
    start_sale: StartSale,
    recoverer: Recoverer,
    coupon_service: CouponService,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each failure is a split under the coupon's lock; the next transaction decides the rest."""
    monkeypatch.setattr(recover, "MAX_FAILURES_PER_TRANSACTION", 3)
    monkeypatch.setattr(recover, "_PROMOTION_BATCH_SIZE", 2)
    coupon = start_sale(quantity=1, users=range(1, 12), faults=dict.fromkeys(range(1, 12), "22012 9")).coupon

    coupon_service.change(coupon.id, {"quantity": 11})
    assert query(_COUNTERS) == [(0, 5, 6)]
    assert recoverer.decide_standby(coupon.id).coupons_with_standby == [coupon.id]
    while recoverer.decide_standby(coupon.id).coupons_with_standby:
        pass

    assert query(_COUNTERS) == [(0, 11, 0)]
