"""A burst of 1,000 on one coupon: the replaced scheduler as it was, every 5 s a chunk of 100, beside ours."""

from benchmarks.experiments.burst import Size, measure

__all__ = ["FULL", "QUICK", "measure"]

FULL, QUICK = Size(1_000, 5.0, 100), None
