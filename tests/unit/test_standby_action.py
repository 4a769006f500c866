"""Standby: who waits for a held seat, and what comes next for them."""

import pytest

from service.domain.coupon import Coupon, Override
from service.domain.decide import PriorRequests, StandbyAction, decide, decide_replayed, next_standby_action
from service.domain.request import ReasonCode, RequestState
from tests.builders import coupon, request


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (coupon(quantity=3, issued=2, standby=3), StandbyAction.PROMOTE),
        (coupon(quantity=3, issued=1, held=1, standby=3), StandbyAction.PROMOTE),
        (coupon(quantity=3, issued=2, held=1, standby=3), StandbyAction.WAIT),
        (coupon(quantity=2, issued=2, standby=1), StandbyAction.REFUSE),
        (coupon(quantity=2, issued=2), StandbyAction.WAIT),
        (coupon(quantity=2), StandbyAction.WAIT),
    ],
    ids=["a seat came back", "one came back, one is held", "all are held", "all are gone", "nobody waits", "no news"],
)
def test_nobody_hears_sold_out_while_a_seat_is_held(after: Coupon, expected: StandbyAction) -> None:
    """Step 5: a free seat goes to those who wait; they are refused only once no seat is free or held."""
    assert next_standby_action(after) is expected


def test_nobody_overtakes_those_on_standby() -> None:
    """Step 5: a seat that is free while others still wait for it is theirs; who comes now stands behind them."""
    known: dict[tuple[int, int], PriorRequests] = {}

    (outcome,) = decide([request(9)], {1: coupon(quantity=3, issued=2, standby=1)}, known)

    assert outcome.state is RequestState.STANDBY


def test_a_close_refuses_what_was_accepted_and_not_decided() -> None:
    """Section 4: an operator's close refuses what is undecided; a pause or the window's end does not."""
    for override, ends, expected in (
        (Override.CLOSED, None, ReasonCode.CLOSED),
        (Override.PAUSED, None, None),
        (Override.NONE, 1, None),
    ):
        (outcome,) = decide([request(9)], {1: coupon(override=override, closes_at_ms=ends)}, {})

        assert outcome.code is expected


@pytest.mark.parametrize(
    ("now", "live", "expected"),
    [
        (coupon(quantity=3, issued=2), False, (RequestState.ISSUED, None)),
        (coupon(quantity=3, issued=2, held=1), False, (RequestState.STANDBY, None)),
        (coupon(quantity=3, issued=3), False, (RequestState.REFUSED, ReasonCode.SOLD_OUT)),
        (coupon(quantity=3), True, (RequestState.REFUSED, ReasonCode.DUPLICATE)),
        (coupon(quantity=3, override=Override.CLOSED), False, (RequestState.REFUSED, ReasonCode.CLOSED)),
        (coupon(quantity=3, closes_at_ms=1), False, (RequestState.ISSUED, None)),
    ],
    ids=["a seat", "all held", "all gone", "he has one", "closed", "its window was judged long ago"],
)
def test_a_replay_is_decided_as_if_it_were_read_now(
    now: Coupon, live: bool, expected: tuple[RequestState, ReasonCode | None]
) -> None:
    """Step 7: eligibility is checked anew, the window is not."""
    (outcome,) = decide_replayed([request(9, user_id=7, accepted=False)], {1: now}, {(1, 7)} if live else set())

    assert (outcome.state, outcome.code) == expected


def test_of_two_dead_requests_of_a_user_one_comes_back() -> None:
    """P2: a replay in bulk gives nobody two."""
    outcomes = decide_replayed([request(3, user_id=7), request(4, user_id=7)], {1: coupon()}, set())

    assert [outcome.state for outcome in outcomes] == [RequestState.ISSUED, RequestState.REFUSED]
