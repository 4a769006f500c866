"""The judge of the order: it sees what contradicts the promises, and nothing where nothing does."""

import pytest

from service.domain.coupon import Override
from service.domain.request import ReasonCode, RequestState
from service.verification.order import CouponVersion, DecidedRequest, OrderChecker

_ONE_SEAT = CouponVersion(None, 1, Override.NONE, None, None, 0)


def _line(
    offset: int,
    sequence: int | None = None,
    *,
    state: RequestState | None = None,
    code: ReasonCode | None = None,
    attempts: int = 1,
    at_ms: int = 1,
    replayed: bool = False,
) -> DecidedRequest:
    """Issued with a sequence, refused with a code, where nothing else is said; decided after every change."""
    state = state or (RequestState.ISSUED if sequence else RequestState.REFUSED)
    return DecidedRequest((1, offset), state, code, sequence, attempts, at_ms, replayed, accepted=True)


def _found(lines: list[DecidedRequest], *versions: CouponVersion) -> dict[str, int]:
    judge = OrderChecker(versions or [_ONE_SEAT]).check(lines)
    return dict(judge.violations) | ({"out_of_order": judge.out_of_order} if judge.out_of_order else {})


def _since(offset: int, quantity: int, override: Override = Override.NONE, at_ms: int = 0) -> CouponVersion:
    return CouponVersion((1, offset), quantity, override, None, None, at_ms)


_SOLD_OUT = ReasonCode.SOLD_OUT
_DEAD = _line(0, state=RequestState.DEAD, code=ReasonCode.EXHAUSTED, attempts=3)


@pytest.mark.parametrize(
    ("lines", "versions"),
    [
        ([_line(0, 1), _line(1, code=_SOLD_OUT), _line(2, 2)], [_ONE_SEAT, _since(2, 2)]),
        ([_line(0, 1, attempts=2), _line(1, code=_SOLD_OUT), _line(2, 2)], [_ONE_SEAT, _since(3, 2)]),
        ([_DEAD, _line(1, 1), _line(2, code=_SOLD_OUT), _line(3, 2)], [_since(0, 3), _since(3, 1), _since(3, 2)]),
        ([_line(0, 2, replayed=True), _line(1, 1)], [_since(0, 2)]),
        ([_line(0, state=RequestState.DEAD, code=ReasonCode.POISON)], [_since(0, 1, Override.CLOSED)]),
        ([_DEAD._replace(replayed=True)], [_since(0, 1, Override.CLOSED), _since(1, 1)]),
    ],
    ids=[
        "raised for those behind",
        "raised while some of those on standby had been refused and others not",
        "on standby under a larger quantity, refused under a smaller one, which then grew",
        "nobody could read it at first",
        "behind a close, and its row could not be written",
        "behind a close, replayed after it, and dead again",
    ],
)
def test_what_is_in_order_is_not_complained_of(lines: list[DecidedRequest], versions: list[CouponVersion]) -> None:
    """P3, P5: a proof that cries wolf proves nothing."""
    assert _found(lines, *versions) == {}


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([_line(0, code=_SOLD_OUT), _line(1, 1)], {"sold_out_too_early": 1, "served_after_sold_out": 1}),
        ([_DEAD, _line(1, code=_SOLD_OUT), _line(2, 1)], {"sold_out_too_early": 1, "served_after_sold_out": 1}),
        ([_line(0, 1), _line(1, code=_SOLD_OUT), _line(2, 2)], {"served_after_sold_out": 1}),
        ([_line(0, 1), _DEAD._replace(at=(1, 1)), _line(2, 2)], {"served_after_sold_out": 1}),
        ([_line(0, 2), _line(1, 1)], {"served_after_sold_out": 1, "out_of_order": 2}),
        ([_line(0, code=ReasonCode.CLOSED)], {"closed_too_early": 1}),
        ([_line(0, code=ReasonCode.PAUSED)], {"judged_twice": 1}),
    ],
    ids=[
        "one behind is served",
        "one behind is served while one waited",
        "more are served than there are",
        "the same, after trouble",
        "out of order",
        "closed too early",
        "judged twice",
    ],
)
def test_what_is_not_in_order_is_seen(lines: list[DecidedRequest], found: dict[str, int]) -> None:
    """P3, P5: of a coupon with one seat."""
    assert _found(lines) == found


def test_whoever_is_decided_behind_a_close_is_seen() -> None:
    """P3: as if the close had not been."""
    closed = _since(1, 9, Override.CLOSED)
    lines = [_line(1, 1), _DEAD._replace(at=(1, 2)), _line(3, state=RequestState.RETRYING)]

    assert _found(lines, _since(0, 9), closed) == {"decided_though_closed": 3}


def test_what_was_changed_afterwards_excuses_nothing() -> None:
    """P3: who was refused, or served, before a change was so by the values of that time."""
    lowered, raised = _since(9, 1, at_ms=500), _since(9, 3, at_ms=500)
    refused = [_line(0, 1), _line(1, code=_SOLD_OUT, at_ms=400)]
    served = [_line(0, state=RequestState.DEAD, code=ReasonCode.EXHAUSTED), _line(1, 1), _line(2, 2, at_ms=400)]

    assert _found(refused, _since(0, 2), lowered) == {"sold_out_too_early": 1}
    assert _found([refused[0], refused[1]._replace(decided_at_ms=600)], _since(0, 2), lowered) == {}
    assert _found(served, _since(0, 1), raised) == {"served_after_sold_out": 1}
    assert _found([*served[:2], served[2]._replace(decided_at_ms=600)], _since(0, 1), raised) == {}


@pytest.mark.parametrize(
    ("at_ms", "override", "said"),
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
def test_what_a_window_says_at_a_moment(at_ms: int, override: Override, said: ReasonCode | None) -> None:
    """Section 3.2: a foreign record is judged by the broker's append time."""
    assert CouponVersion(None, 1, override, 10, 20, 0).window_refusal(at_ms) is said
