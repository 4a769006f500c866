"""Experiment `parts`: Kafka's limit and the gate's limit. PostgreSQL's limit is part of the experiment `drain`."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.environment import start_environment
from benchmarks.experiments.common import Experiment
from benchmarks.figures import Figures
from benchmarks.limits import gate, kafka
from benchmarks.load.records import build_records, shuffled_users


class Size(NamedTuple):
    """Records and seats of a round."""

    records: int
    seats: int


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the limits of each round, each on a new topic."""
    with start_environment(directory) as environment:
        records = list(build_records(1, shuffled_users(size.records)))
        for number in range(rounds):
            yield kafka.measure(environment, records, f"BARE_{number}") | gate.measure(environment, size.seats)


EXPERIMENT = Experiment(
    name="parts",
    description="Limits of Kafka and of the gate's script in Valkey, without this project's code around them.",
    measure=measure,
    full=Size(200_000, 100_000),
    quick=None,
    rounds=3,
)
