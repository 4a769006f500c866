"""The figures on the terminal."""

from collections.abc import Mapping, Sequence

from benchmarks.report.rows import rows
from benchmarks.results import Result
from benchmarks.targets import ALSO, PROMISED


def show(results: Mapping[str, Result], failed: Sequence[str]) -> None:
    """Prints what was measured beside its bound: the median, least and most of the rounds."""
    for row in rows((*PROMISED, *ALSO), results, failed):
        print(f"{row.measured:<26} {row.bound:<9} {row.verdict:<21} {row.what}")
