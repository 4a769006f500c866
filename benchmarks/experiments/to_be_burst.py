"""Bursts of 1,000 and 10,000 on our API with the report's consumer behind it: what issuing one by one costs."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.experiments import burst
from benchmarks.experiments.acts import start_to_be
from benchmarks.figures import Figures
from benchmarks.ground import prepared
from service.stream.topics import Topic


class Size(NamedTuple):
    """Requests of each burst."""

    small: int
    large: int


FULL, QUICK = Size(1_000, 10_000), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Each round both bursts, one after the other."""
    with prepared(directory) as ground:
        api = ground.api()
        start_to_be(ground, Topic.ISSUE_COUPON)
        burst.ours(ground, api, 500)
        for _ in range(rounds):
            small = burst.ours(ground, api, size.small, "to_be_small")
            yield small | burst.ours(ground, api, size.large, "to_be_large")
