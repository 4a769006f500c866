"""Waits by number of partitions: `python -m benchmarks.partitions 1 3 6 12 24`, see ADR 0013."""

import argparse
from pathlib import Path

from benchmarks.experiments import coupons
from benchmarks.figures import Figures

_DIRECTORY = Path(".stack/partitions")
_COLUMNS = {
    "others alone": "others_alone_wait",
    "others beside": "others_beside_wait",
    "sharing beside": "sharing_beside_wait",
    "hot coupon": "hot_wait",
}


def main() -> None:
    """Run the experiment `coupons` with each number of partitions; print p50 and p99 of the waits in milliseconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partitions", description=__doc__)
    parser.add_argument("partitions", type=int, nargs="+")
    parser.add_argument("--repeat", type=int, default=1, help="rounds for each number of partitions")
    arguments = parser.parse_args()
    print("partitions", *(f"{column:>18}" for column in _COLUMNS))
    for partitions in arguments.partitions:
        for figures in coupons.measure(_DIRECTORY, coupons.EXPERIMENT.full, arguments.repeat, partitions):
            cells = (_percentiles(figures, prefix) for prefix in _COLUMNS.values())
            print(f"{partitions:>10}", *(f"{cell:>18}" for cell in cells), flush=True)


def _percentiles(figures: Figures, prefix: str) -> str:
    """Format both percentiles; a dash if no coupon belongs to the column."""
    values = [figures.get(f"{prefix}_{share}_ms") for share in ("p50", "p99")]
    return " / ".join(f"{value:.1f}" for value in values if value is not None) or "-"


if __name__ == "__main__":
    main()
