"""The report at the end of a run: each row's outcome, the number of checks of each invariant, the seed."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.invariants import Invariant
from tests.faults.rows import Row, row_of
from tests.faults.selection import checker_of, seed_of

TABLE = Path(".stack/faults.md")


class _Result(NamedTuple):
    row: Row
    #: passed, failed or skipped
    outcome: str
    #: the reason of a skip, or what the row recorded with record_property
    note: str
    seconds: float


class Report:
    """Collect the results of a run's rows."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._rows: dict[str, Row] = {}
        self._reports: dict[str, list[pytest.TestReport]] = {}

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if row := row_of(item):
            self._rows[item.nodeid] = row

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self._rows:
            self._reports.setdefault(report.nodeid, []).append(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the tables and write them to `.stack/faults.md`."""
        if not self._reports:
            return
        lines = list(self._lines())
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text("\n".join(lines) + "\n")
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(lines))

    def _lines(self) -> Iterator[str]:
        results = sorted(self._results())
        count = {
            outcome: sum(result.outcome == outcome for result in results) for outcome in ("passed", "failed", "skipped")
        }
        checker = checker_of(self._config)
        minutes = sum(result.seconds for result in results) / 60
        yield (
            f"{len(results)} rows: {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped, in"
            f" {minutes:.1f} minutes. {checker.counts.total():,} checks, {len(checker.violations)} violations."
            f" Seed {seed_of(self._config)}."
        )
        yield from ("", "| row | target | fault | outcome | seconds | note |", "|---|---|---|---|---|---|")
        for row, outcome, note, seconds in results:
            yield f"| {row.number} | {row.target} | {row.fault} | {outcome} | {seconds:.0f} | {note} |"
        yield from ("", "| invariant | checks |", "|---|---|")
        yield from (f"| {invariant} | {checker.counts[invariant]:,} |" for invariant in Invariant)
        yield from ("", *(f"- violated: {violation}" for violation in checker.violations))

    def _results(self) -> Iterator[_Result]:
        for nodeid, reports in self._reports.items():
            worst = next((report for report in reports if report.outcome != "passed"), reports[-1])
            seconds = sum(report.duration for report in reports)
            yield _Result(self._rows[nodeid], worst.outcome, _note(worst), seconds)


def _note(report: pytest.TestReport) -> str:
    """Return why a row was skipped, or what it recorded with record_property."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    return "; ".join(str(value) for name, value in report.user_properties if name == "note")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Report(config), "faults-report")
