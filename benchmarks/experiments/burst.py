"""A burst of 10,000 on one coupon: the replaced scheduler taking all there is every 5 s, beside ours."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import decided
from benchmarks.experiments.acts import burst, queue_for, refuses_like_ours, start_as_is, until_phase
from benchmarks.figures import Figures, in_milliseconds
from benchmarks.ground import Ground, prepared
from benchmarks.load.plan import Pressed


class Size(NamedTuple):
    """Requests of a burst; how often the scheduler wakes, and what it takes of a coupon then, all for a chunk of 0."""

    requests: int
    period_seconds: float
    chunk: int


FULL = QUICK = Size(10_000, 5.0, 0)


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """The same burst on both, each round at another moment of the scheduler's period."""
    with prepared(directory) as ground:
        as_is, api = start_as_is(ground, size.period_seconds, size.chunk), ground.api()
        ground.issuer()
        _once(ground, api, as_is)
        for number in range(rounds):
            here = ours(ground, api, size.requests)
            yield here | theirs(ground, as_is, size, (number, rounds))


def ours(ground: Ground, port: int, requests: int, name: str = "ours") -> dict[str, float]:
    """Waits of a burst on our API, whoever issues behind it."""
    ground.clear()
    coupon_id = ground.coupon(requests)
    return _waits(ground, coupon_id, burst(ground, port, coupon_id, requests), name)


def theirs(ground: Ground, port: int, size: Size, moment: tuple[int, int]) -> dict[str, float]:
    """Waits of a burst on the replaced system, at a moment of its period."""
    ground.clear()
    coupon_id = ground.coupon(size.requests)
    queue_for(ground, coupon_id, size.requests)
    until_phase(size.period_seconds, *moment)
    return _waits(ground, coupon_id, burst(ground, port, coupon_id, size.requests), "as_is")


def _waits(ground: Ground, coupon_id: int, pressed: Pressed, name: str) -> dict[str, float]:
    """From when each request was sent, as the report's chart has it; and from when the burst began, for all."""
    waits = decided.waits(ground, [coupon_id], 1, pressed)
    from_begin = [wait + due - pressed.began for wait, due in zip(waits, pressed.due, strict=True)]
    return {
        **in_milliseconds(waits, f"{name}_wait"),
        **in_milliseconds(from_begin, f"{name}_from_burst"),
        f"{name}_accepted_per_second": pressed.rate_after(0),
        f"{name}_generator_cpu_share": pressed.cpu_share,
    }


def _once(ground: Ground, api: int, as_is: int) -> None:
    """Some presses on each, so that no round pays for what happens once."""
    ours(ground, api, 500)
    refuses_like_ours(ground, as_is)
