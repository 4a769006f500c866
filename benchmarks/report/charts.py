"""Charts: waits of bursts, throughput beside the limits, issue rate by table size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import spread
from benchmarks.report.tables import format_number
from benchmarks.results import Result

mpl.use("Agg")

WAITS, THROUGHPUT, SIZE = "waits.png", "throughput.png", "size.png"
_THIS_PROJECT, _REPLACED, _LIMIT = "#0b6e4f", "#b5651d", "#8a8f98"
_DOTS_PER_INCH = 120

Bar = tuple[str, str, str, str]
"""Label, experiment, figure, colour."""

_WAIT_BARS: Sequence[Bar] = (
    ("1,000: scheduler, 5 s / 100", "small_burst", "as_is_wait", _REPLACED),
    ("1,000: TO-BE consumer", "to_be_burst", "to_be_small_wait", _REPLACED),
    ("1,000: this project", "small_burst", "ours_wait", _THIS_PROJECT),
    ("10,000: scheduler, 5 s / all", "burst", "as_is_wait", _REPLACED),
    ("10,000: scheduler, 0.1 s / all", "eager_burst", "as_is_wait", _REPLACED),
    ("10,000: TO-BE consumer", "to_be_burst", "to_be_large_wait", _REPLACED),
    ("10,000: this project", "burst", "ours_wait", _THIS_PROJECT),
)
_THROUGHPUT_BARS: Sequence[Bar] = (
    ("bare ASGI, constant response", "accept", "bare_per_second", _LIMIT),
    ("FastAPI, constant response", "accept", "constant_per_second", _LIMIT),
    ("accepted, 1 API process", "accept", "accepted_per_second", _THIS_PROJECT),
    ("accepted, 1 process (against 2)", "processes", "one_per_second", _THIS_PROJECT),
    ("accepted, 2 processes", "processes", "two_per_second", _THIS_PROJECT),
    ("accepted while issuing", "accept", "while_issuing_per_second", _THIS_PROJECT),
    ("gate's script, 1 seat per call", "parts", "limit_gate_per_second", _LIMIT),
    ("gate's script, 100 per call", "parts", "limit_gate_batched_per_second", _LIMIT),
    ("librdkafka, produce", "parts", "limit_produce_per_second", _LIMIT),
    ("librdkafka, consume", "parts", "limit_consume_per_second", _LIMIT),
    ("binary COPY, single", "drain", "limit_copy_at_once_per_second", _LIMIT),
    ("binary COPY, by batch", "drain", "limit_copy_per_second", _LIMIT),
    ("INSERT of arrays", "drain", "limit_arrays_per_second", _LIMIT),
    ("issued, backlog of one coupon", "drain", "ours_per_second", _THIS_PROJECT),
    ("TO-BE consumer", "drain", "to_be_per_second", _REPLACED),
)


def draw(results: Mapping[str, Result], directory: Path) -> None:
    """Draw each chart that has results."""
    if waits := [bar for bar in reversed(_WAIT_BARS) if bar[1] in results]:
        _draw_waits(waits, results, directory / WAITS)
    if throughput := [bar for bar in reversed(_THROUGHPUT_BARS) if bar[1] in results]:
        _draw_throughput(throughput, results, directory / THROUGHPUT)
    if "growth" in results:
        _draw_size(results["growth"], directory / SIZE)


def _draw_waits(bars: Sequence[Bar], results: Mapping[str, Result], path: Path) -> None:
    figure, axes = _bar_axes(len(bars) * 1.3)
    for at, (_, experiment, name, colour) in enumerate(bars):
        for shift, share, alpha in ((0.2, "p50", 1.0), (-0.2, "p99", 0.45)):
            _draw_bar(axes, at + shift, _values(results, experiment, f"{name}_{share}_ms"), colour, alpha, unit=" ms")
    axes.set_title("Wait of a burst on one coupon, p50 above p99")
    _finish(figure, axes, [bar[0] for bar in bars], "milliseconds", path)


def _draw_throughput(bars: Sequence[Bar], results: Mapping[str, Result], path: Path) -> None:
    figure, axes = _bar_axes(len(bars))
    for at, (_, experiment, name, colour) in enumerate(bars):
        _draw_bar(axes, at, _values(results, experiment, name), colour, 1.0)
    axes.set_title("Throughput beside the limits")
    _finish(figure, axes, [bar[0] for bar in bars], "per second", path)


def _draw_size(growth: Result, path: Path) -> None:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    sizes = sorted(int(name.split("_")[1]) for name in growth.rounds[0] if name.endswith("_per_second"))
    spreads = [spread([figures[f"rows_{rows}_per_second"] for figures in growth.rounds]) for rows in sizes]
    medians = [each.median for each in spreads]
    errors = [[each.median - each.minimum for each in spreads], [each.maximum - each.median for each in spreads]]
    axes.errorbar([rows / 1e6 for rows in sizes], medians, yerr=errors, marker="o", capsize=4, color=_THIS_PROJECT)
    axes.set(ylim=(0, None), xlabel="million rows in the table", ylabel="issued per second")
    axes.set_title("Issue rate on a backlog, by rows in the table")
    _save(figure, path)


def _values(results: Mapping[str, Result], experiment: str, name: str) -> list[float]:
    return [figures[name] for figures in results[experiment].rounds]


def _bar_axes(bars: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8, 1.2 + 0.36 * bars), layout="constrained")
    axes = figure.subplots()
    axes.set_xscale("log")
    return figure, axes


def _draw_bar(axes: Axes, at: float, values: Sequence[float], colour: str, alpha: float, unit: str = "") -> None:
    """Draw the median as a bar with its number, and a line from minimum to maximum."""
    found = spread(values)
    axes.barh(at, found.median, height=0.38 if unit else 0.7, color=colour, alpha=alpha)
    axes.plot([found.minimum, found.maximum], [at, at], color="black", linewidth=1)
    axes.annotate(
        format_number(found.median) + unit,
        (found.maximum, at),
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
    """Write the file without version and date, so that the same results give the same bytes."""
    figure.savefig(path, dpi=_DOTS_PER_INCH, metadata={"Software": None})
