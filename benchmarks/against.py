"""Compare this work tree with another commit: rounds of both alternate, each on a stack of its own."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import results
from benchmarks.checkout import Checkout
from benchmarks.experiments.common import Experiment
from benchmarks.figures import Figures, spread
from benchmarks.report.labels import label
from benchmarks.report.tables import format_number, format_spread
from benchmarks.results import Result

_ABSENT = "–"


class Row(NamedTuple):
    """A figure of both commits as text."""

    figure: str
    before: str
    now: str
    ratio: str


def compare(experiment: Experiment, other: Checkout, size: Any, rounds: int, environments: Path, output: Path) -> None:
    """Measure rounds of this work tree (`now`) and of the other commit (`before`) in turn; print their comparison.

    Both stacks run until the end. The figures are written to `output` after each pair of rounds.
    """
    began = time.monotonic()
    sides = {
        "now": experiment.measure(environments / "now", size, rounds),
        "before": experiment.measure(environments / "before", size, rounds, other),
    }
    measured: dict[str, list[Figures]] = {side: [] for side in sides}
    # strict: both generators are exhausted, so that both stacks are stopped
    for number, pair in enumerate(zip(*sides.values(), strict=True), 1):
        seconds = time.monotonic() - began
        print(f"  round {number} of {rounds} of both, {seconds:.0f} s", flush=True)
        for side, figures in zip(sides, pair, strict=True):
            measured[side].append(figures)
            result = _result(experiment, size, measured[side], seconds)
            results.write(output / side, experiment.name, result)
    _print(rows(_result(experiment, size, [], 0.0), measured["before"], measured["now"]))


def rows(result: Result, before: Sequence[Figures], now: Sequence[Figures]) -> Iterator[Row]:
    """Yield each figure's medians and the median ratio of its pairs of rounds, with minimum and maximum.

    A figure that one of the commits lacks has no ratio. `result` describes the experiment, for the labels.
    """
    for name in dict.fromkeys(name for figures in (*before, *now) for name in figures):
        pairs = zip(now, before, strict=True)
        ratios = [one[name] / other[name] for one, other in pairs if name in one and other.get(name)]
        ratio = format_spread(spread(ratios), "×") if ratios else _ABSENT
        yield Row(label(result, name), _median(before, name), _median(now, name), ratio)


def _median(rounds: Sequence[Figures], name: str) -> str:
    values = [figures[name] for figures in rounds if name in figures]
    return format_number(spread(values).median) if values else _ABSENT


def _result(experiment: Experiment, size: Any, rounds: Sequence[Figures], seconds: float) -> Result:
    measured = [{name: float(value) for name, value in figures.items()} for figures in rounds]
    return Result(experiment.name, experiment.description, size._asdict(), measured, seconds)


def _print(table: Iterator[Row]) -> None:
    """Print the rows as a Markdown table."""
    found = [Row("figure", "before", "now", "now ÷ before (min – max)"), *table]
    width = max(len(row.figure) for row in found)
    for at, row in enumerate(found):
        print(f"| {row.figure:<{width}} | {row.before:>9} | {row.now:>9} | {row.ratio} |")
        if at == 0:
            print("|---|---:|---:|---|")
