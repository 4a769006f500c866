"""The table at the end: every row with its outcome, every invariant with the number of its checks, the seed."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.ledger import Invariant
from tests.faults.rows import Row, row_of
from tests.faults.selection import ledger_of, seed_of

TABLE = Path(".stack/faults.md")


class _Ran(NamedTuple):
    row: Row
    #: passed, failed or skipped
    outcome: str
    #: why it was skipped, or what it measured
    note: str
    seconds: float


class Report:
    """Gathers what became of the rows of a run."""

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
        """Prints the table and leaves it in a file."""
        if not self._reports:
            return
        lines = list(self._lines())
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text("\n".join(lines) + "\n")
        terminalreporter.section("faults")
        terminalreporter.write_line("\n".join(lines))

    def _lines(self) -> Iterator[str]:
        ran = sorted(self._ran())
        count = {outcome: sum(one.outcome == outcome for one in ran) for outcome in ("passed", "failed", "skipped")}
        ledger = ledger_of(self._config)
        minutes = sum(one.seconds for one in ran) / 60
        yield (
            f"{len(ran)} rows: {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped, in"
            f" {minutes:.1f} minutes. {ledger.made.total():,} checks, {len(ledger.violations)} violations."
            f" Seed {seed_of(self._config)}."
        )
        yield from ("", "| row | target | fault | outcome | seconds | note |", "|---|---|---|---|---|---|")
        for row, outcome, note, seconds in ran:
            yield f"| {row.number} | {row.target} | {row.fault} | {outcome} | {seconds:.0f} | {note} |"
        yield from ("", "| invariant | checks |", "|---|---|")
        yield from (f"| {invariant} | {ledger.made[invariant]:,} |" for invariant in Invariant)
        yield from ("", *(f"- violated: {violation}" for violation in ledger.violations))

    def _ran(self) -> Iterator[_Ran]:
        for nodeid, reports in self._reports.items():
            worst = next((report for report in reports if report.outcome != "passed"), reports[-1])
            seconds = sum(report.duration for report in reports)
            yield _Ran(self._rows[nodeid], worst.outcome, _note(worst), seconds)


def _note(report: pytest.TestReport) -> str:
    """Why a row was skipped, or what it wrote down with record_property."""
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    return "; ".join(str(value) for name, value in report.user_properties if name == "note")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Report(config), "faults-report")
