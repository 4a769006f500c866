"""The page `docs/benchmarks.md`, generated from the results; no figure is typed by hand."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.figures import spread
from benchmarks.report import charts, costs, profile
from benchmarks.report.labels import label
from benchmarks.report.tables import Row, format_number, format_spread, target_rows
from benchmarks.results import Result, RunInfo
from benchmarks.targets import PRIMARY, SECONDARY

_PROFILES, _COSTS = "profiles", "request_cost"
_INTRODUCTION = """\
# Benchmarks: this project beside what it replaces

`python -m benchmarks --publish` writes this page. Every figure is computed from the raw files beside it. All processes
and the load generator run on one machine, so absolute figures mean little elsewhere; the ratios count. Both sides of a
ratio are measured in the same round. The exception is `issuers`: all rounds of one issuer come before those of two, and
the n-th rounds are compared. A figure is the median of the rounds, with minimum and maximum in brackets.

- **Scheduler** is the AS-IS system. One Lua call of a FastAPI route adds a user to the coupon's SortedSet. A scheduler
  reads every queue and issues a chunk of it with one statement. It is measured with three settings: a chunk of 100
  every 5 s, as it was; the whole queue every 5 s; and at its best, the whole queue every 0.1 s.
- **TO-BE consumer** is the report's consumer in Python, behind this project's API: one message, one transaction.
- **PostgreSQL's insert limit**: the rows that the issuer wrote in the same round are inserted again into the emptied
  tables, in the issuer's own transactions, with the offset and one outbox row each (the issuer writes one for each 500
  records). The rows are encoded before the clock starts. The faster of binary COPY and INSERT of arrays is the limit.
- All systems write the same tables with the same constraints and counting triggers, and every commit is durable. Each
  comparator is checked to issue exactly the quantity, once per user, with a sequence without a gap.
- A **wait** ends at the commit timestamp that PostgreSQL records. In an open model it begins when the request was due
  (no coordinated omission). In a burst it begins when the request was sent over one of a hundred connections. The
  figures **from the first request** also contain the time until a connection was free, which depends on the accept
  rate.
- **Accepted** requests and the constant responses are measured in a closed model: each of 64 or of 256 connections
  sends its next request after a response. The better rate of each server counts. The issuer is suspended meanwhile,
  except for the figures *while issuing*.
- **Cores** are CPU time divided by the time of the load. An API process and the issuer each run Python code in one
  thread at a time, so a process that uses about one core is the limit; if all parts and the generator together use all
  cores, the machine is.
- **Memory**: the API is restarted before each figure. A connection that never completes a request stays open, alone
  with others of its kind; its figure is the growth of the API's resident memory divided by their number.
- **Hostile connections**: of each kind the same number is open all the time. A slow one sends a header every 250 ms and
  never ends its head, a silent one sends nothing, a half-closed one sends half a head and closes its sending side. One
  that the server ends is opened again, at most once a second.
"""


def write(results: Mapping[str, Result], run: RunInfo, directory: Path) -> None:
    """Write the page beside `directory`, the folder of the raw files."""
    path = directory.with_suffix(".md")
    path.write_text("\n".join(_lines(results, run, directory.name)) + "\n")


def _lines(results: Mapping[str, Result], run: RunInfo, folder: str) -> Iterator[str]:
    yield _INTRODUCTION
    yield from _run_section(run)
    yield from _targets_section("Targets", target_rows(PRIMARY, results, run.failed))
    yield from _targets_section("Further figures", target_rows(SECONDARY, results, run.failed))
    yield from _charts_section(results, folder)
    if _COSTS in results:
        yield from costs.section(results[_COSTS], folder)
    if _PROFILES in results:
        yield from profile.section(results[_PROFILES].rounds)
    yield "## All figures\n"
    for name, result in results.items():
        if name not in (_PROFILES, _COSTS):
            yield from _experiment_section(result, folder)


def _run_section(run: RunInfo) -> Iterator[str]:
    yield "## Machine and versions\n"
    load = f"load average before the run {run.load_average_before:g}"
    yield f"`{run.command}`, begun {run.began_at}, commit `{run.commit}`, {load}.\n"
    machine = ", ".join(f"{name} {value}" for name, value in run.machine.items())
    yield f"- machine: {machine}"
    yield f"- versions: {', '.join(f'{name} {value}' for name, value in run.versions.items())}\n"


def _targets_section(title: str, rows: Sequence[Row]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| figure | bound | measured: median (min – max) | |"
    yield "|---|---|---|---|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _charts_section(results: Mapping[str, Result], folder: str) -> Iterator[str]:
    if {"burst", "small_burst"} & results.keys():
        yield "Green is this project, brown is what it replaces, grey is a limit.\n"
        yield f"![waits of a burst]({folder}/{charts.WAITS})\n"
    if {"accept", "drain"} & results.keys():
        yield f"![throughput beside the limits]({folder}/{charts.THROUGHPUT})\n"
    if "growth" in results:
        yield f"![issue rate by rows in the table]({folder}/{charts.SIZE})\n"


def _experiment_section(result: Result, folder: str) -> Iterator[str]:
    sizes = ", ".join(f"{name.replace('_', ' ')} {_format_size(value)}" for name, value in result.size.items())
    yield f"### {result.description}\n"
    raw = f"[raw]({folder}/{result.experiment}.json)"
    yield f"{raw}, {len(result.rounds)} rounds, {sizes}, {result.seconds:.0f} s in total\n"
    yield "| figure | median (min – max) |"
    yield "|---|---|"
    for name in result.rounds[0]:
        values = [figures[name] for figures in result.rounds]
        yield f"| {label(result, name)} | {format_spread(spread(values))} |"
    yield ""


def _format_size(value: float | list[float]) -> str:
    return ", ".join(map(format_number, value)) if isinstance(value, list) else format_number(value)
