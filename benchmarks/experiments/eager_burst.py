"""A burst of 10,000 on one coupon: the replaced scheduler at its best, all there is ten times a second, beside ours."""

from benchmarks.experiments.burst import Size, measure

__all__ = ["FULL", "QUICK", "measure"]

FULL, QUICK = Size(10_000, 0.1, 0), None
