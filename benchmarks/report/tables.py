"""Rows of the targets' table, for the terminal and for the page."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.figures import Spread, spread
from benchmarks.results import Result
from benchmarks.targets import PRIMARY, SECONDARY, Target

LEFT_OUT, FAILED, NOT_MEASURED = "left out of this run", "failed in this run", "not measured in this run"


class Row(NamedTuple):
    """A target as text."""

    description: str
    bound: str
    measured: str
    verdict: str


def target_rows(targets: Sequence[Target], results: Mapping[str, Result], failed: Sequence[str]) -> list[Row]:
    """Return a row for each target; without a result, its verdict is that the experiment was left out or failed."""
    return [
        _row(target, results.get(target.experiment), FAILED if target.experiment in failed else LEFT_OUT)
        for target in targets
    ]


def print_targets(results: Mapping[str, Result], failed: Sequence[str]) -> None:
    """Print all targets: median, minimum and maximum of the rounds, bound, verdict."""
    for row in target_rows((*PRIMARY, *SECONDARY), results, failed):
        print(f"{row.measured:<26} {row.bound:<9} {row.verdict:<21} {row.description}")


def _row(target: Target, result: Result | None, verdict_without_result: str) -> Row:
    bound = "–" if target.bound is None else f"{'≤' if target.at_most else '≥'} {target.bound:g}{target.unit}"
    if result is None:
        return Row(target.description, bound, "–", verdict_without_result)
    measured = target.measured(result.rounds)
    if not measured:
        return Row(target.description, bound, "–", NOT_MEASURED)
    return Row(target.description, bound, format_spread(spread(measured), target.unit), _verdict(target, measured))


def _verdict(target: Target, measured: Sequence[float]) -> str:
    """Judge the median; if only some rounds reached the bound, include their number."""
    if target.bound is None:
        return ""
    if missed := target.missed_by(spread(measured).median):
        return f"missed by {missed:.0%}"
    rounds = sum(not target.missed_by(value) for value in measured)
    return "reached" if rounds == len(measured) else f"reached, in {rounds} of {len(measured)} rounds"


def format_spread(measured: Spread, unit: str = "") -> str:
    """Format the median; minimum and maximum follow in brackets if they differ."""
    middle = f"{format_number(measured.median)}{unit}"
    if measured.minimum == measured.maximum:
        return middle
    return f"{middle} ({format_number(measured.minimum)} – {format_number(measured.maximum)})"


def format_number(value: float) -> str:
    """Format with three significant digits, or with all digits before the decimal point."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
