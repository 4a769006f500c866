"""The charts: waits beside what was replaced, throughput beside the limits, cost against size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import spread
from benchmarks.report.rows import number
from benchmarks.results import Result

mpl.use("Agg")

WAITS, THROUGHPUT, SIZE = "waits.png", "throughput.png", "size.png"
_OURS, _THEIRS, _LIMIT = "#0b6e4f", "#b5651d", "#8a8f98"
_DOTS_PER_INCH = 120

Bar = tuple[str, str, str, str]
"""Label, experiment, figure, colour."""

_WAITS: Sequence[Bar] = (
    ("1,000: scheduler, 5 s / 100", "small_burst", "as_is_wait", _THEIRS),
    ("1,000: message by message", "to_be_burst", "to_be_small_wait", _THEIRS),
    ("1,000: here", "small_burst", "ours_wait", _OURS),
    ("10,000: scheduler, 5 s / all", "burst", "as_is_wait", _THEIRS),
    ("10,000: scheduler, 0.1 s / all", "eager_burst", "as_is_wait", _THEIRS),
    ("10,000: message by message", "to_be_burst", "to_be_large_wait", _THEIRS),
    ("10,000: here", "burst", "ours_wait", _OURS),
)
_THROUGHPUT: Sequence[Bar] = (
    ("bare ASGI, a constant", "accept", "bare_per_second", _LIMIT),
    ("FastAPI, a constant", "accept", "constant_per_second", _LIMIT),
    ("accepted, one API process", "accept", "accepted_per_second", _OURS),
    ("accepted, one beside two", "processes", "one_per_second", _OURS),
    ("accepted, two beside one", "processes", "two_per_second", _OURS),
    ("accepted while issued", "accept", "while_issuing_per_second", _OURS),
    ("gate's script, one a call", "parts", "limit_gate_per_second", _LIMIT),
    ("gate's script, 100 a call", "parts", "limit_gate_gathered_per_second", _LIMIT),
    ("librdkafka, append", "parts", "limit_produce_per_second", _LIMIT),
    ("librdkafka, read", "parts", "limit_consume_per_second", _LIMIT),
    ("binary COPY, all at once", "drain", "limit_copy_at_once_per_second", _LIMIT),
    ("binary COPY", "drain", "limit_copy_per_second", _LIMIT),
    ("INSERT of arrays", "drain", "limit_arrays_per_second", _LIMIT),
    ("issued, a backlog of one coupon", "drain", "ours_per_second", _OURS),
    ("message by message", "drain", "to_be_per_second", _THEIRS),
)


def draw(results: Mapping[str, Result], directory: Path) -> None:
    """Draws each chart whose experiments ran."""
    if waits := _there(_WAITS, results):
        _draw_waits(waits, results, directory / WAITS)
    if throughput := _there(_THROUGHPUT, results):
        _draw_throughput(throughput, results, directory / THROUGHPUT)
    if "growth" in results:
        _draw_size(results["growth"], directory / SIZE)


def _there(bars: Sequence[Bar], results: Mapping[str, Result]) -> list[Bar]:
    return [bar for bar in reversed(bars) if bar[1] in results]


def _draw_waits(bars: Sequence[Bar], results: Mapping[str, Result], path: Path) -> None:
    figure, axes = _axes(len(bars) * 1.3)
    for at, (_, experiment, name, colour) in enumerate(bars):
        for shift, share, alpha in ((0.2, "p50", 1.0), (-0.2, "p99", 0.45)):
            _bar(axes, at + shift, _values(results, experiment, f"{name}_{share}_ms"), colour, alpha, unit=" ms")
    axes.set_title("Wait of a burst on one coupon, p50 above p99")
    _finish(figure, axes, [bar[0] for bar in bars], "milliseconds", path)


def _draw_throughput(bars: Sequence[Bar], results: Mapping[str, Result], path: Path) -> None:
    figure, axes = _axes(len(bars))
    for at, (_, experiment, name, colour) in enumerate(bars):
        _bar(axes, at, _values(results, experiment, name), colour, 1.0)
    axes.set_title("Throughput beside the limits of the parts")
    _finish(figure, axes, [bar[0] for bar in bars], "per second", path)


def _draw_size(growth: Result, path: Path) -> None:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    sizes = sorted(int(name.split("_")[1]) for name in growth.rounds[0] if name.endswith("_per_second"))
    spreads = [spread([each[f"rows_{rows}_per_second"] for each in growth.rounds]) for rows in sizes]
    middles = [each.middle for each in spreads]
    errors = [[each.middle - each.least for each in spreads], [each.most - each.middle for each in spreads]]
    axes.errorbar([rows / 1e6 for rows in sizes], middles, yerr=errors, marker="o", capsize=4, color=_OURS)
    axes.set(ylim=(0, None), xlabel="million rows in the table", ylabel="issued per second")
    axes.set_title("Draining a backlog, against the rows that are there already")
    _save(figure, path)


def _values(results: Mapping[str, Result], experiment: str, name: str) -> list[float]:
    return [each[name] for each in results[experiment].rounds]


def _axes(bars: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 1.2 + 0.36 * bars), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    return figure, axes


def _bar(axes: Axes, at: float, values: Sequence[float], colour: str, alpha: float, unit: str = "") -> None:
    """The median, a whisker from the least to the most, and the number."""
    found = spread(values)
    axes.barh(at, found.middle, height=0.38 if unit else 0.7, color=colour, alpha=alpha)
    axes.plot([found.least, found.most], [at, at], color="black", linewidth=1)
    axes.annotate(
        number(found.middle) + unit,
        (found.most, at),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _finish(figure: Figure, axes: Axes, labels: Sequence[str], unit: str, path: Path) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel(f"{unit}, logarithmic")
    axes.margins(x=0.15)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """The same results give the same bytes: the file names no version and no date."""
    figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
