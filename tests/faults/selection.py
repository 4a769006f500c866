"""Which rows run: a slice chosen by the seed, all of them, or those that were named."""

import secrets
from collections.abc import Sequence
from random import Random

import pytest

from tests.faults.ledger import Ledger
from tests.faults.rows import row_of

#: what a slice may cost in seconds as the rows declare them; it takes about five minutes
SLICE_SECONDS = 600.0
#: the slice of a run that names no seed: what is red today was not green by chance yesterday
SLICE_SEED = 1
_SEED = pytest.StashKey[int]()
_LEDGER = pytest.StashKey[Ledger]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--rows", default="slice", metavar="WHICH", help="rows to run: slice, all, or numbers as 14,15")
    group.addoption(
        "--seed",
        type=int,
        help="seed of the slice and of all chance in the rows (default: a new one for all rows, 1 for the slice)",
    )
    group.addoption("--storm-minutes", type=float, default=3.0, help="how long the random storm lasts (default: 3)")
    group.addoption("--storm-accepted", type=int, default=0, help="and until so many were accepted (default: 0)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(row): a row of the matrix of faults, see docs/faults.md")
    given = config.getoption("--seed")
    new = SLICE_SEED if config.getoption("--rows") == "slice" else secrets.randbelow(1_000_000)
    config.stash[_SEED] = new if given is None else given
    config.stash[_LEDGER] = Ledger()


def pytest_report_header(config: pytest.Config) -> str:
    return f"faults: rows {config.getoption('--rows')}, --seed {seed_of(config)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    rows = [item for item in items if row_of(item)]
    chosen = set(_chosen(config.getoption("--rows"), rows, seed_of(config)))
    left_out = [item for item in rows if item not in chosen]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def seed_of(config: pytest.Config) -> int:
    """The seed of the run."""
    return config.stash[_SEED]


def ledger_of(config: pytest.Config) -> Ledger:
    """The checks of the run."""
    return config.stash[_LEDGER]


def _chosen(which: str, rows: Sequence[pytest.Item], seed: int) -> Sequence[pytest.Item]:
    if which == "all":
        return rows
    if which == "slice":
        return _slice(rows, seed)
    numbers = {int(number) for number in which.split(",")}
    return [item for item in rows if (row := row_of(item)) and row.number in numbers]


def _slice(rows: Sequence[pytest.Item], seed: int) -> list[pytest.Item]:
    """Rows that need no stack of their own, as many as fit, a different choice for every seed."""
    shuffled = Random(seed).sample(rows, len(rows))
    chosen, left = [], SLICE_SECONDS
    for item in shuffled:
        row = row_of(item)
        if row and row.seconds <= left and "_started" in getattr(item, "fixturenames", ()):
            chosen.append(item)
            left -= row.seconds
    return chosen
