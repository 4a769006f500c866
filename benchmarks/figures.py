"""Arithmetic on measurements: percentiles, ratios within a round, spread over rounds."""

from collections.abc import Mapping, Sequence
from math import ceil
from statistics import median
from typing import NamedTuple

Figures = Mapping[str, float]
"""Measurements of one round of an experiment, by name. A name ends in its unit."""


class Spread(NamedTuple):
    """Minimum, median and maximum of a figure over all rounds."""

    minimum: float
    median: float
    maximum: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of the values; raise ValueError if there are none."""
    if not values:
        raise ValueError("no values: nothing was measured")
    return Spread(min(values), median(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the values do not exceed (nearest rank).

    The result is always a measured value, never an interpolation: p99 of 100 values is the second largest.
    Raises ValueError without values, and for a share outside 0 < share <= 1.
    """
    if not values or not 0 < share <= 1:
        raise ValueError("a percentile needs values and a share above 0 and up to 1")
    return sorted(values)[ceil(share * len(values)) - 1]


def ratios(rounds: Sequence[Figures], numerator: str, denominator: str | None) -> list[float]:
    """Return the ratio of two figures in each round, or the figure itself without a denominator.

    A ratio never mixes two rounds. Rounds without one of the figures are left out.
    """
    names = {numerator, denominator or numerator}
    complete = [figures for figures in rounds if names <= figures.keys()]
    return [figures[numerator] / (figures[denominator] if denominator else 1) for figures in complete]


def prefixed(prefix: str, figures: Figures) -> dict[str, float]:
    """Return the figures as `<prefix>_<name>`."""
    return {f"{prefix}_{name}": value for name, value in figures.items()}


def in_milliseconds(waits_seconds: Sequence[float], prefix: str) -> dict[str, float]:
    """Return p50, p99 and maximum as `<prefix>_p50_ms` and so on; an empty dictionary without waits."""
    if not waits_seconds:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {f"{prefix}_{name}_ms": percentile(waits_seconds, share) * 1000 for name, share in shares.items()}
