"""The page `docs/benchmarks.md`: made from the results, no figure typed by hand."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.figures import spread
from benchmarks.report import charts, profile
from benchmarks.report.rows import Row, number, rows, text
from benchmarks.results import Circumstances, Result
from benchmarks.targets import ALSO, PROMISED

_PROFILES = "profiles"
_INTRODUCTION = """\
# Measured, beside what it replaces

This page is written by `python -m benchmarks --publish`; every figure is computed from the raw files beside it. All
parts run on one machine with the load generator, so absolute figures say little elsewhere: the ratios count. Both sides
of each were measured in the same round, but for issuers: there one's rounds come after the other's, and the n-th of
each are compared. A figure is the median of the rounds, with the least and the most.

- **Scheduler** is the system that was replaced: a SortedSet for each coupon, filled by one Lua call of a FastAPI route,
  emptied by a scheduler, a chunk of each queue in one statement: every 5 s a hundred, as it was; every 5 s all there
  is; and at its best, all there is ten times a second.
- **Message by message** is the report's consumer in Python: one message, one transaction, behind our API.
- **Bare insert limit**: the rows that the issuer wrote in the round, its transactions as they were cut, with the offset
  and one outbox row each (the issuer writes one for each 500), put back into the emptied tables from bytes made
  beforehand – by binary COPY or by an INSERT of arrays, whichever is faster.
- All write the same tables with the same constraints and counting triggers, every commit durable; each comparator is
  checked to issue exactly what there is, once a user, without a gap.
- **Wait** ends at the moment that PostgreSQL notes for the commit. In an open model it begins when the request was due
  (no coordinated omission); in a burst, when it was sent over one of a hundred connections. What the rest of the burst
  waits until one of them is free is in the figures **from the first press**: by these, what a server accepts counts.
- **Accepted** is counted in a closed model, as are the constants: each of 64 or of 256 connections sends again upon an
  answer; of each server the better number counts. Nobody issues meanwhile, unless it is said (*while issuing*).
"""


def write(results: Mapping[str, Result], circumstances: Circumstances, directory: Path) -> None:
    """Writes the page beside its directory of raw files."""
    path = directory.with_suffix(".md")
    path.write_text("\n".join(_lines(results, circumstances, directory.name)) + "\n")


def _lines(results: Mapping[str, Result], circumstances: Circumstances, folder: str) -> Iterator[str]:
    yield _INTRODUCTION
    yield from _circumstances(circumstances)
    yield from _table("What is promised", rows(PROMISED, results, circumstances.failed))
    yield from _table("Beside it", rows(ALSO, results, circumstances.failed))
    yield from _charts(results, folder)
    if _PROFILES in results:
        yield from profile.section(results[_PROFILES].rounds)
    yield from _everything(results, folder)


def _circumstances(told: Circumstances) -> Iterator[str]:
    yield "## Where and how\n"
    before = f"load average before {told.load_average_before:g}"
    yield f"`{told.command}`, begun {told.began_at}, commit `{told.commit}`, {before}.\n"
    machine = ", ".join(f"{name} {value}" for name, value in told.machine.items())
    yield f"- machine: {machine}"
    yield f"- versions: {', '.join(f'{name} {value}' for name, value in told.versions.items())}\n"


def _table(title: str, found: Sequence[Row]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| figure | bound | measured | |"
    yield "|---|---|---|---|"
    yield from (f"| {' | '.join(row)} |" for row in found)
    yield ""


def _charts(results: Mapping[str, Result], folder: str) -> Iterator[str]:
    if {"burst", "small_burst"} & results.keys():
        yield "Green is this project, brown what it replaces, grey a limit.\n"
        yield f"![waits of a burst]({folder}/{charts.WAITS})\n"
    if {"accept", "drain"} & results.keys():
        yield f"![throughput beside the limits]({folder}/{charts.THROUGHPUT})\n"
    if "growth" in results:
        yield f"![drain against rows]({folder}/{charts.SIZE})\n"


def _everything(results: Mapping[str, Result], folder: str) -> Iterator[str]:
    yield "## All figures\n"
    for name, result in results.items():
        if name != _PROFILES:
            yield from _figures(result, folder)


def _size(value: float | list[float]) -> str:
    return ", ".join(map(number, value)) if isinstance(value, list) else number(value)


def _figures(result: Result, folder: str) -> Iterator[str]:
    sizes = ", ".join(f"{name.replace('_', ' ')} {_size(value)}" for name, value in result.size.items())
    yield f"### {result.what}\n"
    raw = f"[raw]({folder}/{result.experiment}.json)"
    yield f"{raw}, {len(result.rounds)} rounds, {sizes}, {result.seconds:.0f} s in all\n"
    yield "| figure | median (least – most) |"
    yield "|---|---|"
    for name in result.rounds[0]:
        yield f"| {name.replace('_', ' ')} | {text(spread([each[name] for each in result.rounds]))} |"
    yield ""
