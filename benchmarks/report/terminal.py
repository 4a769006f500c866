"""The tables on the terminal."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from benchmarks.report.rows import rows
from benchmarks.results import Result
from benchmarks.targets import ALSO, PROMISED


def show(results: Mapping[str, Result]) -> None:
    """Prints what was promised beside what was measured."""
    table = Table("figure", "bound", "measured (least – most)", "")
    for row in rows((*PROMISED, *ALSO), results):
        table.add_row(*row)
    Console().print(table)
