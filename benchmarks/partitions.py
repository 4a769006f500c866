"""What more partitions give, and cost: `python -m benchmarks.partitions 1 3 6 12 24`."""

import argparse
from pathlib import Path

from benchmarks.experiments import coupons
from benchmarks.figures import Figures

_DIRECTORY = Path(".stack/partitions")
_COLUMNS = {
    "others alone": "others_alone_wait",
    "others beside": "others_beside_wait",
    "sharing beside": "sharing_beside_wait",
    "the hot one": "hot_wait",
}


def main() -> None:
    """One hot coupon and twenty cold ones on so many partitions: waits in milliseconds, p50 and p99."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partitions", description=__doc__)
    parser.add_argument("partitions", type=int, nargs="+")
    parser.add_argument("--repeat", type=int, default=1, help="rounds with each number")
    told = parser.parse_args()
    print("partitions", *(f"{column:>18}" for column in _COLUMNS))
    for number in told.partitions:
        for figures in coupons.measure(_DIRECTORY, coupons.FULL, told.repeat, number):
            print(f"{number:>10}", *(f"{_told(figures, prefix):>18}" for prefix in _COLUMNS.values()), flush=True)


def _told(figures: Figures, prefix: str) -> str:
    """Both percentiles, or a dash where no coupon is such a one."""
    found = [figures.get(f"{prefix}_{share}_ms") for share in ("p50", "p99")]
    return " / ".join(f"{each:.1f}" for each in found if each is not None) or "-"


if __name__ == "__main__":
    main()
