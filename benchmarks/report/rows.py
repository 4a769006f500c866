"""The rows of the table of figures, for the terminal and the page alike."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.figures import Spread, spread
from benchmarks.results import Result
from benchmarks.targets import Target

LEFT_OUT, FAILED = "left out of this run", "failed in this run"


class Row(NamedTuple):
    """A figure as text."""

    what: str
    bound: str
    measured: str
    verdict: str


def rows(targets: Sequence[Target], results: Mapping[str, Result], failed: Sequence[str]) -> list[Row]:
    """Each target's row; one whose experiment did not run, or broke off, says so."""
    return [
        _row(target, results.get(target.experiment), FAILED if target.experiment in failed else LEFT_OUT)
        for target in targets
    ]


def _row(target: Target, result: Result | None, absent: str) -> Row:
    bound = "–" if target.bound is None else f"{'≤' if target.at_most else '≥'} {target.bound:g}{target.unit}"
    if result is None:
        return Row(target.what, bound, "–", absent)
    measured = target.measured(result.rounds)
    return Row(target.what, bound, text(spread(measured), target.unit), _verdict(target, measured))


def _verdict(target: Target, measured: Sequence[float]) -> str:
    """Of the median; and in how many rounds it was reached, if not in all."""
    if target.bound is None:
        return ""
    if missed := target.missed_by(spread(measured).middle):
        return f"missed by {missed:.0%}"
    rounds = sum(not target.missed_by(each) for each in measured)
    return "reached" if rounds == len(measured) else f"reached, in {rounds} of {len(measured)} rounds"


def text(measured: Spread, unit: str = "") -> str:
    """Median, with least and most where there was more than one round."""
    middle = f"{number(measured.middle)}{unit}"
    if measured.least == measured.most:
        return middle
    return f"{middle} ({number(measured.least)} – {number(measured.most)})"


def number(value: float) -> str:
    """Three digits that count, or all before the point."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
