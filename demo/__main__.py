"""Command line of the demo: on a terminal it keeps running until Ctrl-C, elsewhere it ends with its result."""

import argparse
import signal
import sys
from contextlib import suppress

from rich.console import Console

from demo import environment
from demo.run import run_demo
from demo.sale import plan_sale
from stack.errors import StackError

PLAIN_WIDTH = 120
EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the demo; return 0 only if every check passed."""
    arguments, on_terminal = _arguments(), sys.stdin.isatty() and sys.stdout.isatty()
    console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, markup=False, highlight=False)
    environment.stop_on_signals()
    plan = plan_sale(arguments.users, arguments.coupons)
    try:
        with run_demo(console, plan, details=arguments.details) as passed:
            if on_terminal:
                console.print("Everything keeps running until Ctrl-C.")
                with suppress(KeyboardInterrupt):
                    while True:
                        signal.pause()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if passed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="Start the whole system, let users compete for coupons, and verify the promises P1 to P5.",
    )
    parser.add_argument("--users", type=_positive, default=5_000, help="number of users (default: 5000)")
    parser.add_argument(
        "--coupons",
        type=_positive,
        nargs="+",
        default=[1_000, 200, 50],
        metavar="QUANTITY",
        help="quantity of each coupon; the bigger, the more users request it (default: 1000 200 50)",
    )
    parser.add_argument("--details", action="store_true", help="print every check with its numbers")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
