"""Every experiment in the order in which they run, and how often each is repeated."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.experiments import (
    accept,
    burst,
    coupons,
    drain,
    eager_burst,
    growth,
    issuers,
    notices,
    parts,
    processes,
    profiles,
    retries,
    small_burst,
    to_be_burst,
)
from benchmarks.figures import Figures


class Experiment(NamedTuple):
    """`measure` yields the figures of each round; without a quick size it is left out of a quick run."""

    name: str
    what: str
    measure: Callable[[Path, Any, int], Iterator[Figures]]
    full: Any
    quick: Any
    rounds: int


def _experiment(module: Any, rounds: int) -> Experiment:
    name = module.__name__.rpartition(".")[2]
    return Experiment(name, module.__doc__.partition("\n")[0], module.measure, module.FULL, module.QUICK, rounds)


QUICK_ROUNDS = 2
EXPERIMENTS = (
    _experiment(drain, 5),
    _experiment(accept, 5),
    _experiment(processes, 3),
    _experiment(burst, 5),
    _experiment(small_burst, 3),
    _experiment(eager_burst, 3),
    _experiment(to_be_burst, 3),
    _experiment(parts, 3),
    _experiment(growth, 5),
    _experiment(coupons, 3),
    _experiment(issuers, 3),
    _experiment(notices, 3),
    _experiment(retries, 3),
    _experiment(profiles, 1),
)
