"""The judge of the order: what it must see, and the histories that look wrong and are not."""

from collections.abc import Iterable

import pytest

from service.domain.coupon import Override
from service.domain.order import Judge, Line, Version
from service.domain.request import Code, State

_FIRST = Version(None, 2, Override.NONE, None, None, 0)


def version(since: int, quantity: int, changed_at_ms: int, override: Override = Override.NONE) -> Version:
    """Values that count from an offset."""
    return Version((1, since), quantity, override, None, None, changed_at_ms)


def line(offset: int, state: State, *, at_ms: int | None = 0, replayed: bool = False, attempts: int = 1) -> Line:
    """What became of a request; sequences follow the offsets, unless a test says otherwise."""
    code = Code.SOLD_OUT if state is State.REFUSED else None
    sequence = offset + 1 if state is State.ISSUED else None
    return Line((1, offset), state, code, sequence, attempts, at_ms, replayed, accepted=True)


def found(versions: Iterable[Version], *lines: Line) -> dict[str, int]:
    """What contradicts the promises."""
    return dict(Judge([_FIRST, *versions]).read(lines).found)


def test_a_sale_in_order() -> None:
    """P3: two are issued, the third is refused."""
    assert found([], line(0, State.ISSUED), line(1, State.ISSUED), line(2, State.REFUSED)) == {}


def test_sold_out_too_early_is_seen_whatever_was_changed_afterwards() -> None:
    """P3: a quantity that was lowered after the refusal excuses nothing."""
    lowered = version(since=9, quantity=1, changed_at_ms=500)

    assert found([lowered], line(0, State.ISSUED), line(1, State.REFUSED, at_ms=400)) == {"sold_out_too_early": 1}
    assert found([lowered], line(0, State.ISSUED), line(1, State.REFUSED, at_ms=600)) == {}


def test_served_after_sold_out_is_seen_unless_there_were_more_by_then() -> None:
    """P3, P5: nobody accepted earlier hears sold_out of seats that a later one gets."""
    raised = version(since=3, quantity=3, changed_at_ms=500)
    sale = (line(0, State.ISSUED), line(1, State.ISSUED), line(2, State.REFUSED))

    assert found([], *sale, line(3, State.ISSUED)) == {"served_after_sold_out": 1}
    assert found([raised], *sale, line(3, State.ISSUED, at_ms=600)) == {}


def test_who_waited_may_be_refused_under_a_later_smaller_quantity() -> None:
    """ADR 0011: raised to 5, two join the standby, lowered to 2 before they are promoted, raised to 3 for the next."""
    changes = [version(4, 5, 100), version(6, 2, 200), version(6, 3, 300)]
    sale = (line(0, State.ISSUED), line(1, State.ISSUED), line(4, State.REFUSED, at_ms=250))

    assert found(changes, *sale, line(6, State.ISSUED, at_ms=400)) == {}


@pytest.mark.parametrize("state", [State.ISSUED, State.STANDBY, State.RETRYING])
def test_what_lies_behind_a_close_is_refused(state: State) -> None:
    """Section 4: the close is a line in the log; one that could not even be refused is a dead letter."""
    closed = version(since=1, quantity=2, changed_at_ms=0, override=Override.CLOSED)

    assert found([closed], line(1, state))["decided_though_closed"] == 1
    assert found([closed], line(1, State.DEAD)) == {}


def test_a_replay_disturbs_the_sequence_and_nothing_else() -> None:
    """Step 7: it was decided by the values of its day, not of its record."""
    judge = Judge([_FIRST]).read(
        [line(0, State.ISSUED, replayed=True)._replace(sequence=2), line(1, State.ISSUED)._replace(sequence=1)]
    )

    assert judge.disturbed
    assert (judge.out_of_order, dict(judge.found)) == (0, {})


@pytest.mark.parametrize(
    ("at_ms", "override", "said"),
    [
        (9, Override.NONE, Code.NOT_OPEN),
        (10, Override.NONE, None),
        (19, Override.NONE, None),
        (20, Override.NONE, Code.CLOSED),
        (15, Override.PAUSED, Code.PAUSED),
        (9, Override.PAUSED, Code.PAUSED),
        (15, Override.CLOSED, Code.CLOSED),
    ],
)
def test_what_a_window_says_at_a_moment(at_ms: int, override: Override, said: Code | None) -> None:
    """Section 3.2: a foreign record is judged by the broker's append time."""
    assert Version(None, 1, override, 10, 20, 0).window(at_ms) is said
