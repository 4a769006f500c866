"""Standby: requests that wait for a held seat, and what happens to them next."""

import pytest

from service.domain.coupon import Coupon, Override
from service.domain.decide import PriorRequests, StandbyAction, decide, decide_replayed, next_standby_action
from service.domain.request import ReasonCode, RequestState
from tests.builders import coupon, request


@pytest.mark.parametrize(
    ("coupon_now", "expected"),
    [
        (coupon(quantity=3, issued=2, standby=3), StandbyAction.PROMOTE),
        (coupon(quantity=3, issued=1, held=1, standby=3), StandbyAction.PROMOTE),
        (coupon(quantity=3, issued=2, held=1, standby=3), StandbyAction.WAIT),
        (coupon(quantity=2, issued=2, standby=1), StandbyAction.REFUSE),
        (coupon(quantity=2, issued=2), StandbyAction.WAIT),
        (coupon(quantity=2), StandbyAction.WAIT),
    ],
    ids=["one free", "one free, one held", "all others held", "all issued", "sold out, no standby", "free, no standby"],
)
def test_standby_is_refused_only_when_no_seat_is_free_or_held(coupon_now: Coupon, expected: StandbyAction) -> None:
    """P5: a free seat goes to standby; standby is refused only when no seat is free or held."""
    assert next_standby_action(coupon_now) is expected


def test_a_new_request_does_not_overtake_standby() -> None:
    """P3: a free seat belongs to the requests on standby; a new request is on standby behind them."""
    prior: dict[tuple[int, int], PriorRequests] = {}

    (outcome,) = decide([request(9)], {1: coupon(quantity=3, issued=2, standby=1)}, prior)

    assert outcome.state is RequestState.STANDBY


def test_a_close_refuses_accepted_requests_that_are_undecided() -> None:
    """An operator's close refuses undecided requests; a pause or the end of the window does not."""
    for override, closes_at_ms, expected in (
        (Override.CLOSED, None, ReasonCode.CLOSED),
        (Override.PAUSED, None, None),
        (Override.NONE, 1, None),
    ):
        (outcome,) = decide([request(9)], {1: coupon(override=override, closes_at_ms=closes_at_ms)}, {})

        assert outcome.code is expected


@pytest.mark.parametrize(
    ("coupon_now", "live", "expected"),
    [
        (coupon(quantity=3, issued=2), False, (RequestState.ISSUED, None)),
        (coupon(quantity=3, issued=2, held=1), False, (RequestState.STANDBY, None)),
        (coupon(quantity=3, issued=3), False, (RequestState.REFUSED, ReasonCode.SOLD_OUT)),
        (coupon(quantity=3), True, (RequestState.REFUSED, ReasonCode.DUPLICATE)),
        (coupon(quantity=3, override=Override.CLOSED), False, (RequestState.REFUSED, ReasonCode.CLOSED)),
        (coupon(quantity=3, closes_at_ms=1), False, (RequestState.ISSUED, None)),
    ],
    ids=["a free seat", "all held", "sold out", "the user has one", "closed", "after the window"],
)
def test_a_replay_is_decided_as_if_it_were_read_now(
    coupon_now: Coupon, live: bool, expected: tuple[RequestState, ReasonCode | None]
) -> None:
    """Eligibility is checked again, the window is not."""
    (outcome,) = decide_replayed([request(9, user_id=7, accepted=False)], {1: coupon_now}, {(1, 7)} if live else set())

    assert (outcome.state, outcome.code) == expected


def test_of_two_replayed_requests_of_a_user_one_is_issued() -> None:
    """P2: a replay of many dead letters gives no user two coupons."""
    outcomes = decide_replayed([request(3, user_id=7), request(4, user_id=7)], {1: coupon()}, set())

    assert [outcome.state for outcome in outcomes] == [RequestState.ISSUED, RequestState.REFUSED]
