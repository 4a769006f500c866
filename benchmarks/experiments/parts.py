"""The other parts' limits: Kafka's log and the gate's script, with nothing around them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.figures import Figures
from benchmarks.ground import prepared
from benchmarks.limits import gate, log
from benchmarks.records import minted, shuffled


class Size(NamedTuple):
    """Records, and seats, of a round."""

    records: int
    seats: int


FULL, QUICK = Size(200_000, 100_000), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Each round on a topic of its own."""
    with prepared(directory) as ground:
        asked = list(minted(1, shuffled(size.records)))
        for number in range(rounds):
            yield log.measure(ground, asked, f"BARE_{number}") | gate.measure(ground, size.seats)
