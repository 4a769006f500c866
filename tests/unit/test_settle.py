"""Settling: what becomes of those on standby once a held seat is issued or given up."""

import pytest

from service.domain.coupon import Coupon
from service.domain.decide import Outcome, settle
from service.domain.request import Code, State
from tests.builders import coupon, request

STANDBY = [request(offset) for offset in (3, 5, 8)]


def _summary(outcomes: list[Outcome]) -> list[tuple[int, State, Code | None, int | None]]:
    return [(done.request.place.offset, done.state, done.code, done.sequence) for done in outcomes]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (
            coupon(quantity=3, issued=2),
            [
                (3, State.ISSUED, None, 3),
                (5, State.REFUSED, Code.SOLD_OUT, None),
                (8, State.REFUSED, Code.SOLD_OUT, None),
            ],
        ),
        (coupon(quantity=3, issued=1, held=1), [(3, State.ISSUED, None, 2)]),
        (coupon(quantity=3, issued=2, held=1), []),
        (coupon(quantity=2, issued=2), [(offset, State.REFUSED, Code.SOLD_OUT, None) for offset in (3, 5, 8)]),
        (coupon(quantity=9), [(3, State.ISSUED, None, 1), (5, State.ISSUED, None, 2), (8, State.ISSUED, None, 3)]),
    ],
    ids=["one seat came back", "one came back, one is held", "all are held", "none came back", "more than wait"],
)
def test_the_lowest_offset_gets_the_seat_and_nobody_hears_sold_out_while_one_is_held(
    after: Coupon, expected: list[tuple[int, State, Code | None, int | None]]
) -> None:
    """Step 5: a seat goes to the lowest standby offset; the rest are refused only once no seat is held."""
    assert _summary(settle(after, STANDBY)) == expected


def test_with_nobody_on_standby_nothing_follows() -> None:
    """Step 5: a seat that nobody waits for stays free."""
    assert settle(coupon(quantity=3, issued=1), []) == []
