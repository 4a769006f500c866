"""The commands of the local stack: up, parts, lock."""

import argparse
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from stack import jars
from stack.errors import StackError
from stack.local import LocalStack
from stack.plan import EVERYTHING, PARTS

PREFERRED_PORTS = {"api": 8000, "issuer": 8001, "flower": 5555}
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ToldToStop(BaseException):
    """Ctrl-C, a kill, or the terminal that went away."""


def main() -> int:
    """Runs one command; returns its exit status."""
    chosen = _arguments()
    try:
        if chosen.command == "lock":
            jars.write_lock(jars.resolve())
        else:
            _run(chosen.directory, EVERYTHING if chosen.command == "up" else PARTS)
    except ToldToStop:
        return 0
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, explanation in (
        ("up", "run Kafka, PostgreSQL, Valkey and every process of the application until Ctrl-C"),
        ("parts", "run Kafka, PostgreSQL and Valkey alone until Ctrl-C"),
    ):
        command = commands.add_parser(name, help=explanation)
        command.add_argument("--directory", type=Path, default=Path(".stack"), help="where state and logs are kept")
    commands.add_parser("lock", help="resolve Kafka's jars anew into stack/kafka.lock")
    return parser.parse_args()


def _run(directory: Path, names: Iterable[str]) -> None:
    for number in STOPPING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup is meant
            signal.signal(number, _stop)
    with LocalStack(directory, names, preferred_ports=PREFERRED_PORTS, tell=_print) as stack:
        _welcome(stack)
        while True:
            signal.pause()


def _stop(*_: object) -> None:
    for each in STOPPING:
        signal.signal(each, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the stopping
    _print("stopping")
    raise ToldToStop


def _welcome(stack: LocalStack) -> None:
    if "API_URL" in stack.environment:
        _print(f"API       {stack.api_url}/docs")
    if "FLOWER_URL" in stack.environment:
        _print(f"Flower    {stack.flower_url}")
    _print(f"a shell   source {stack.directory / 'env'}")
    _print("Authentication is off; everything listens on loopback only. Ctrl-C stops it.")


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
