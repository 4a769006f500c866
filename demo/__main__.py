"""Runs the demo: `python -m demo`; on a terminal it stays up until Ctrl-C, elsewhere it ends with its verdict."""

import argparse
import signal
import sys
from contextlib import suppress

from rich.console import Console

from demo import run, sale, signals
from stack.errors import StackError

PLAIN_WIDTH = 120
INTERRUPTED = 130


def main() -> int:
    """Holds the sale; returns 0 only if everything promised is so."""
    chosen, on_terminal = _arguments(), sys.stdin.isatty() and sys.stdout.isatty()
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False, highlight=False)
    signals.stop_as_ctrl_c()
    try:
        with run.held(console, sale.planned(chosen.users, chosen.coupons)) as holds:
            if on_terminal:
                _stay(console)
    except KeyboardInterrupt:
        return INTERRUPTED
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if holds else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Users race for coupons, then the proof.")
    parser.add_argument("--users", type=_positive, default=5_000, help="how many users ask (default: 5000)")
    parser.add_argument(
        "--coupons",
        type=_positive,
        nargs="+",
        default=[1_000, 200, 50],
        metavar="QUANTITY",
        help="how many there are of each coupon; the bigger, the more ask for it (default: 1000 200 50)",
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return number


def _stay(console: Console) -> None:
    console.print("Everything stays up until Ctrl-C.")
    with suppress(KeyboardInterrupt):
        while True:
            signal.pause()


if __name__ == "__main__":
    sys.exit(main())
