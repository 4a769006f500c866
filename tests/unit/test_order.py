"""The order checker counts what contradicts the promises, and nothing else."""

import pytest

from service.domain.coupon import Override
from service.domain.request import ReasonCode, RequestState
from service.verification.order import CouponVersion, DecidedRequest, OrderChecker

_ONE_SEAT = CouponVersion(None, 1, Override.NONE, None, None, 0)


def _decided(
    offset: int,
    sequence: int | None = None,
    *,
    state: RequestState | None = None,
    code: ReasonCode | None = None,
    attempts: int = 1,
    at_ms: int = 1,
    replayed: bool = False,
) -> DecidedRequest:
    """Return an issued request if a sequence is given, else a refused one; decided after every change by default."""
    state = state or (RequestState.ISSUED if sequence else RequestState.REFUSED)
    return DecidedRequest((1, offset), state, code, sequence, attempts, at_ms, replayed, accepted=True)


def _violations(requests: list[DecidedRequest], *versions: CouponVersion) -> dict[str, int]:
    """Check the requests of a coupon, by default one with a quantity of 1, and return the violations."""
    checker = OrderChecker(versions or [_ONE_SEAT]).check(requests)
    return dict(checker.violations) | ({"out_of_order": checker.out_of_order} if checker.out_of_order else {})


def _version(offset: int, quantity: int, override: Override = Override.NONE, at_ms: int = 0) -> CouponVersion:
    """Return the values that apply from this offset on."""
    return CouponVersion((1, offset), quantity, override, None, None, at_ms)


_SOLD_OUT = ReasonCode.SOLD_OUT
_DEAD = _decided(0, state=RequestState.DEAD, code=ReasonCode.EXHAUSTED, attempts=3)


@pytest.mark.parametrize(
    ("requests", "versions"),
    [
        ([_decided(0, 1), _decided(1, code=_SOLD_OUT), _decided(2, 2)], [_ONE_SEAT, _version(2, 2)]),
        ([_decided(0, 1, attempts=2), _decided(1, code=_SOLD_OUT), _decided(2, 2)], [_ONE_SEAT, _version(3, 2)]),
        (
            [_DEAD, _decided(1, 1), _decided(2, code=_SOLD_OUT), _decided(3, 2)],
            [_version(0, 3), _version(3, 1), _version(3, 2)],
        ),
        ([_decided(0, 2, replayed=True), _decided(1, 1)], [_version(0, 2)]),
        ([_decided(0, state=RequestState.DEAD, code=ReasonCode.POISON)], [_version(0, 1, Override.CLOSED)]),
        ([_DEAD._replace(replayed=True)], [_version(0, 1, Override.CLOSED), _version(1, 1)]),
    ],
    ids=[
        "quantity raised after a sold_out",
        "quantity raised while only a part of standby was refused",
        "on standby under a larger quantity, refused under a smaller one, which was raised again",
        "poison at first, replayed later",
        "after a close, and its row could not be written",
        "after a close, replayed when it was reopened, and dead again",
    ],
)
def test_a_correct_order_has_no_violation(requests: list[DecidedRequest], versions: list[CouponVersion]) -> None:
    """P3, P5: false alarms would make the proof worthless."""
    assert _violations(requests, *versions) == {}


@pytest.mark.parametrize(
    ("requests", "violations"),
    [
        ([_decided(0, code=_SOLD_OUT), _decided(1, 1)], {"sold_out_too_early": 1, "issued_after_sold_out": 1}),
        ([_DEAD, _decided(1, code=_SOLD_OUT), _decided(2, 1)], {"sold_out_too_early": 1, "issued_after_sold_out": 1}),
        ([_decided(0, 1), _decided(1, code=_SOLD_OUT), _decided(2, 2)], {"issued_after_sold_out": 1}),
        ([_decided(0, 1), _DEAD._replace(at=(1, 1)), _decided(2, 2)], {"issued_after_sold_out": 1}),
        ([_decided(0, 2), _decided(1, 1)], {"issued_after_sold_out": 1, "out_of_order": 2}),
        ([_decided(0, code=ReasonCode.CLOSED)], {"closed_too_early": 1}),
        ([_decided(0, code=ReasonCode.PAUSED)], {"window_checked_twice": 1}),
    ],
    ids=[
        "a later request is issued after a sold_out",
        "a later request is issued after a sold_out, and one is dead",
        "more are issued than the quantity",
        "more are issued than the quantity, and one is dead",
        "out of order",
        "closed too early",
        "checked against the window twice",
    ],
)
def test_a_wrong_order_is_found(requests: list[DecidedRequest], violations: dict[str, int]) -> None:
    """P3, P5: each violation of a coupon with one seat is counted."""
    assert _violations(requests) == violations


def test_requests_decided_after_a_close_are_found() -> None:
    """P3: requests after the close that were decided as if the coupon were open."""
    closed = _version(1, 9, Override.CLOSED)
    requests = [_decided(1, 1), _DEAD._replace(at=(1, 2)), _decided(3, state=RequestState.RETRYING)]

    assert _violations(requests, _version(0, 9), closed) == {"not_refused_after_close": 3}


def test_a_later_change_does_not_excuse_an_earlier_decision() -> None:
    """P3: a request that was refused or issued before a change is checked against the values of that time."""
    lowered, raised = _version(9, 1, at_ms=500), _version(9, 3, at_ms=500)
    refused = [_decided(0, 1), _decided(1, code=_SOLD_OUT, at_ms=400)]
    issued = [
        _decided(0, state=RequestState.DEAD, code=ReasonCode.EXHAUSTED),
        _decided(1, 1),
        _decided(2, 2, at_ms=400),
    ]

    assert _violations(refused, _version(0, 2), lowered) == {"sold_out_too_early": 1}
    assert _violations([refused[0], refused[1]._replace(decided_at_ms=600)], _version(0, 2), lowered) == {}
    assert _violations(issued, _version(0, 1), raised) == {"issued_after_sold_out": 1}
    assert _violations([*issued[:2], issued[2]._replace(decided_at_ms=600)], _version(0, 1), raised) == {}


@pytest.mark.parametrize(
    ("at_ms", "override", "refusal"),
    [
        (9, Override.NONE, ReasonCode.NOT_OPEN),
        (10, Override.NONE, None),
        (19, Override.NONE, None),
        (20, Override.NONE, ReasonCode.CLOSED),
        (15, Override.PAUSED, ReasonCode.PAUSED),
        (9, Override.PAUSED, ReasonCode.PAUSED),
        (15, Override.CLOSED, ReasonCode.CLOSED),
    ],
)
def test_the_window_refuses_a_foreign_record_by_its_append_time(
    at_ms: int, override: Override, refusal: ReasonCode | None
) -> None:
    """The broker's append time decides which refusal a window and an override give."""
    assert CouponVersion(None, 1, override, 10, 20, 0).window_refusal(at_ms) is refusal
