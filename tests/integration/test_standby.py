"""Standby is a queue: seats that come back go to the lowest offset, may fail there too, and nobody overtakes."""

from collections.abc import Callable

import pytest

from service.domain.coupon import Coupon
from service.domain.request import LogPosition
from service.usecases import recover
from service.usecases.coupons import CouponService
from service.usecases.recover import Recoverer
from tests.integration.conftest import Ask, Attempt, Sell

MakeCoupon = Callable[..., Coupon]
_ROWS = 'SELECT user_id, state, code, sequence, attempts FROM requests ORDER BY "offset"'
_COUNTERS = "SELECT issued, held, standby FROM coupons"


def test_a_promotion_that_fails_is_held_in_its_turn(sell: Sell, attempt: Attempt, ask: Ask) -> None:
    """P5: the seat of the dead goes to user 2, whose write fails once; user 3 waits on, refused at the end."""
    sell(quantity=1, users=range(1, 4), faults={1: "22012 9", 2: "22012 1"})
    assert ask(_COUNTERS) == [(0, 1, 2)]

    attempt(1)
    attempt(2)

    assert ask(_ROWS) == [
        (1, "dead", "exhausted", None, 3),
        (2, "retrying", None, None, 1),
        (3, "standby", None, None, 0),
    ]
    assert ask(_COUNTERS) == [(0, 1, 1)]

    attempt(1)

    assert ask(_ROWS)[1:] == [(2, "issued", None, 1, 2), (3, "refused", "sold_out", None, 1)]
    assert ask(_COUNTERS) == [(1, 0, 0)]
    assert ask("SELECT count(*) FROM retries") == [(0,)]


def test_a_seat_passes_through_the_hands_of_all_who_fail(sell: Sell, attempt: Attempt, ask: Ask) -> None:
    """P5: two die with all their attempts, each in turn, and the third has the coupon."""
    sell(quantity=1, users=range(1, 5), faults={1: "22012 9", 2: "22012 9"})

    for _ in range(2):
        attempt(1)
        attempt(2)

    assert [row.state for row in ask(_ROWS)] == ["dead", "dead", "issued", "refused"]
    assert ask("SELECT attempts, user_id FROM dead_letters ORDER BY id") == [(3, 1), (3, 2)]


def test_more_on_standby_than_fit_a_transaction_are_settled_in_several(
    sell: Sell, recoverer: Recoverer, attempt: Attempt, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3, P5: whoever is left after one transaction is settled by the next, in order."""
    monkeypatch.setattr(recover, "STANDBY_AT_ONCE", 3)
    coupon = sell(quantity=1, users=range(1, 10), faults={1: "22012 1"}).coupon

    attempt(1)
    assert ask(_COUNTERS) == [(1, 0, 5)]
    assert recoverer.decide_standby(coupon.id).coupons_with_standby == [coupon.id]
    while recoverer.decide_standby(coupon.id).coupons_with_standby:
        pass

    assert ask(_COUNTERS) == [(1, 0, 0)]
    assert [row.state for row in ask(_ROWS)] == ["issued", *["refused"] * 8]
    assert recoverer.decide_standby(coupon.id).outbox_kinds == set()


def test_each_decision_is_handed_off_once(sell: Sell, attempt: Attempt, ask: Ask) -> None:
    """Step 8: a transaction that buries, promotes and refuses tells of each of them in exactly one hand-off."""
    sell(quantity=2, users=range(1, 8), faults={1: "22012 9"})

    attempt(1)
    attempt(2)

    told = ask(
        "SELECT requests.\"offset\", count(*) FROM requests JOIN outbox ON kind = 'notify'"
        " AND outbox.decided_at = requests.decided_at AND requests.partition = outbox.partition"
        ' AND "offset" BETWEEN first_offset AND last_offset GROUP BY 1 ORDER BY 1'
    )
    assert told == [(offset, 1) for offset in range(7)]


def test_what_was_held_in_an_earlier_life_of_the_topic_ends_too(sell: Sell, recoverer: Recoverer, ask: Ask) -> None:
    """P4: rows of a topic that was deleted and made again are tried by their own log's number."""
    sell(quantity=1, users=range(1, 3), faults={1: "22012 9"})
    ask("INSERT INTO logs (topic, topic_id) VALUES ('ISSUE_COUPON', 'another life') RETURNING id")
    for table in ("retries", "requests"):
        ask(f"UPDATE {table} SET log_id = 2 RETURNING 1")

    for attempts_made in (1, 2):
        rows = ask('SELECT partition, "offset" FROM retries WHERE attempts = :made', made=attempts_made)
        assert rows
        recoverer.retry(2, [LogPosition(row.partition, row.offset) for row in rows], attempts_made)

    assert [row.state for row in ask(_ROWS)] == ["dead", "issued"]


def test_promotions_that_fail_end_a_transaction_before_it_is_long(
    sell: Sell, recoverer: Recoverer, coupon_service: CouponService, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 6: each failure is a split under the coupon's lock; what is left is settled by the next transaction."""
    monkeypatch.setattr(recover, "FAILURES_AT_ONCE", 3)
    monkeypatch.setattr(recover, "_PROMOTED_AT_ONCE", 2)
    coupon = sell(quantity=1, users=range(1, 12), faults=dict.fromkeys(range(1, 12), "22012 9")).coupon

    coupon_service.change(coupon.id, {"quantity": 11})
    assert ask(_COUNTERS) == [(0, 5, 6)]
    assert recoverer.decide_standby(coupon.id).coupons_with_standby == [coupon.id]
    while recoverer.decide_standby(coupon.id).coupons_with_standby:
        pass

    assert ask(_COUNTERS) == [(0, 11, 0)]
