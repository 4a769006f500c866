"""A row of the matrix of faults: what is broken, how, and what it costs to try."""

from typing import NamedTuple

import pytest


class Row(NamedTuple):
    """One test of the matrix; the number says which row of docs/faults.md it belongs to."""

    number: int
    target: str
    fault: str
    #: about how long it takes, for those who choose a slice
    seconds: float


def row(number: int, target: str, fault: str, *, seconds: float, within: float = 120) -> pytest.MarkDecorator:
    """Marks a test as a row that takes about `seconds`, and has failed when it takes more than `within`."""

    def mark(test: object) -> object:
        timed = pytest.mark.timeout(within)(test)
        return pytest.mark.row(Row(number, target, fault, seconds))(timed)

    return mark  # type: ignore[return-value]


def row_of(item: pytest.Item) -> Row | None:
    """The row that a test is, if it is one."""
    mark = item.get_closest_marker("row")
    if mark is None:
        return None
    found: Row = mark.args[0]
    variant = getattr(item, "callspec", None)
    return found._replace(fault=f"{found.fault}: {variant.id}") if variant else found
