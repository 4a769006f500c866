"""A row of the fault matrix: the part that fails, how it fails, and how long the test takes."""

from typing import NamedTuple

import pytest


class Row(NamedTuple):
    """One test of the matrix; the number is its row in docs/faults.md."""

    number: int
    target: str
    fault: str
    #: approximate duration, used to choose a slice
    seconds: float


def row(number: int, target: str, fault: str, *, seconds: float, within: float = 120) -> pytest.MarkDecorator:
    """Mark a test as a row that takes about `seconds` and fails after `within` seconds."""

    def mark(test: object) -> object:
        timed = pytest.mark.timeout(within)(test)
        return pytest.mark.row(Row(number, target, fault, seconds))(timed)

    return mark  # type: ignore[return-value]


def row_of(item: pytest.Item) -> Row | None:
    """Return the row of a test, with its parameters in the fault's title; None if the test is not a row."""
    mark = item.get_closest_marker("row")
    if mark is None:
        return None
    found: Row = mark.args[0]
    variant = getattr(item, "callspec", None)
    return found._replace(fault=f"{found.fault}: {variant.id}") if variant else found
