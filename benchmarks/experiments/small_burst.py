"""A burst of 1,000 on one coupon: the replaced scheduler as it was, every 5 s a chunk of 100, beside ours."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.experiments import burst
from benchmarks.figures import Figures

_CHUNK = 100


class Size(NamedTuple):
    """Requests of a burst."""

    requests: int


FULL, QUICK = Size(1_000), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Each round takes as many periods as there are chunks."""
    yield from burst.side_by_side(directory, size.requests, _CHUNK, rounds)
