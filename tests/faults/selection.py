"""Choose the rows of a run: a slice that depends on the seed, all rows, or rows by number."""

import secrets
from collections.abc import Sequence
from random import Random

import pytest

from tests.faults.invariants import InvariantChecker
from tests.faults.rows import row_of

#: sum of the declared seconds of a slice's rows; such a slice takes about five minutes
SLICE_SECONDS = 600.0
#: default seed of a slice, fixed so that two runs test the same rows
SLICE_SEED = 1
_SEED = pytest.StashKey[int]()
_CHECKER = pytest.StashKey[InvariantChecker]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--rows", default="slice", metavar="WHICH", help="rows to run: slice, all, or numbers like 14,15")
    group.addoption(
        "--seed",
        type=int,
        help="seed for the slice and for all random choices in the rows (default: random with all rows, 1 for a slice)",
    )
    group.addoption("--storm-minutes", type=float, default=3.0, help="minimum length of the random storm (default: 3)")
    group.addoption("--storm-accepted", type=int, default=0, help="minimum number of accepted requests (default: 0)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(row): a row of the fault matrix, see docs/faults.md")
    config.addinivalue_line("markers", "all_rows: a test that runs with all rows only: it needs the machine for itself")
    given = config.getoption("--seed")
    new = SLICE_SEED if config.getoption("--rows") == "slice" else secrets.randbelow(1_000_000)
    config.stash[_SEED] = new if given is None else given
    config.stash[_CHECKER] = InvariantChecker()


def pytest_report_header(config: pytest.Config) -> str:
    return f"faults: rows {config.getoption('--rows')}, --seed {seed_of(config)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rows = [item for item in items if row_of(item)]
    chosen = set(_chosen(config.getoption("--rows"), rows, seed_of(config)))
    deselected = [item for item in rows if item not in chosen]
    if config.getoption("--rows") != "all":
        deselected += [item for item in items if item.get_closest_marker("all_rows")]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item not in deselected]


def seed_of(config: pytest.Config) -> int:
    """Return the seed of the run."""
    return config.stash[_SEED]


def checker_of(config: pytest.Config) -> InvariantChecker:
    """Return the invariant checker of the run."""
    return config.stash[_CHECKER]


def _chosen(which: str, rows: Sequence[pytest.Item], seed: int) -> Sequence[pytest.Item]:
    if which == "all":
        return rows
    if which == "slice":
        return _slice(rows, seed)
    numbers = {int(number) for number in which.split(",")}
    return [item for item in rows if (row := row_of(item)) and row.number in numbers]


def _slice(rows: Sequence[pytest.Item], seed: int) -> list[pytest.Item]:
    """Choose as many rows as fit, at random, from those that run on the shared stack."""
    shuffled = Random(seed).sample(rows, len(rows))
    chosen, left = [], SLICE_SECONDS
    for item in shuffled:
        row = row_of(item)
        if row and row.seconds <= left and "_started" in getattr(item, "fixturenames", ()):
            chosen.append(item)
            left -= row.seconds
    return chosen
