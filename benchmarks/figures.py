"""Arithmetic on measurements: percentiles, ratios of one round, and the spread over rounds."""

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median
from typing import NamedTuple

Figures = Mapping[str, float]
"""What one round of an experiment measured, by name; the unit is the end of the name."""


class Spread(NamedTuple):
    """A figure over all rounds."""

    least: float
    middle: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """The least, the median and the greatest of the values; raises ValueError when there are none."""
    if not values:
        raise ValueError("nothing was measured")
    return Spread(min(values), median(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that `share` of them do not exceed (nearest rank); raises ValueError when there are none.

    A value that was measured, never one between two: p99 of 100 values is the second greatest.
    """
    if not values or not 0 < share <= 1:
        raise ValueError("a percentile needs values and a share above 0 and up to 1")
    return sorted(values)[ceil(share * len(values)) - 1]


def ratios(rounds: Sequence[Figures], over: str, under: str | None) -> list[float]:
    """Each round's own ratio of two figures, or the figure itself: rounds are never mixed with one another."""
    return [each[over] / (each[under] if under else 1) for each in rounds]


def in_milliseconds(waits_seconds: Sequence[float], prefix: str) -> dict[str, float]:
    """Median, 99th percentile and maximum of waits, named `<prefix>_p50_ms` and so on; nothing of no waits."""
    if not waits_seconds:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {f"{prefix}_{name}_ms": percentile(waits_seconds, share) * 1000 for name, share in shares.items()}
