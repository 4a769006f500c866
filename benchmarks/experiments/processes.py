"""One API process and two that share a port: what the second one adds to what is accepted."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.experiments.acts import WARM_SECONDS, accepted
from benchmarks.figures import Figures
from benchmarks.ground import Ground, prepared


class Size(NamedTuple):
    """How long each of a round's presses lasts."""

    seconds: float


FULL, QUICK = Size(4.0), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Each round: 256 connections to the one, then to the two, while nobody issues."""
    with prepared(directory) as ground:
        one = ground.api()
        two = ground.serve("api-two", "service.api", port_variable="API_PORT", API_PROCESSES="2")
        ground.issuer()
        for port in (one, two):
            accepted(ground, port, 1)
        for _ in range(rounds):
            yield _told(ground, one, size.seconds, "one") | _told(ground, two, size.seconds, "two")


def _told(ground: Ground, port: int, seconds: float, name: str) -> dict[str, float]:
    pressed = accepted(ground, port, seconds)
    return {f"{name}_per_second": pressed.rate_after(WARM_SECONDS), f"{name}_generator_share": pressed.cpu_share}
