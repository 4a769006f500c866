"""Command line of the local stack: up, servers, lock."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from stack import jars
from stack.errors import StackError
from stack.local import LocalStack
from stack.startup import EVERYTHING, SERVERS

PREFERRED_PORTS = {"api": 8000, "issuer": 8001, "flower": 5555}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(BaseException):
    """A stop signal arrived: Ctrl-C, `kill`, or the terminal closed."""


def main() -> int:
    """Run one command and return its exit status."""
    arguments = _parse_arguments()
    try:
        if arguments.command == "lock":
            jars.write_lock(jars.resolve())
        else:
            _run(arguments.directory, EVERYTHING if arguments.command == "up" else SERVERS)
    except StopRequested:
        return 0
    except StackError as error:
        _print(str(error), sys.stderr)
        return 1
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="run the servers and every process of the application until Ctrl-C")
    servers = commands.add_parser(
        "servers", aliases=["parts"], help="run only Kafka, PostgreSQL and Valkey until Ctrl-C"
    )
    for command in (up, servers):
        command.add_argument("--directory", type=Path, default=Path(".stack"), help="directory of data and logs")
    commands.add_parser("lock", help="resolve Kafka's jars again and write stack/kafka.lock")
    return parser.parse_args()


def _run(directory: Path, names: Iterable[str]) -> None:
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # keep the SIG_IGN that nohup sets
            signal.signal(number, _request_stop)
    with LocalStack(directory, names, preferred_ports=PREFERRED_PORTS, on_message=_print) as stack:
        if "API_URL" in stack.environment:
            _print(f"API       {stack.api_url}/docs")
            _print(f"dashboard {stack.api_url}/dashboard")
        if "FLOWER_URL" in stack.environment:
            user, password = stack.flower_login
            _print(f"Flower    {stack.flower_url}  user {user}, password {password}")
        _print(f"shell     source {shlex.quote(str(stack.directory / 'env'))}")
        if stack.environment.get("AUTH") == "on":
            _print("users     coupons token 7            (after `source`)")
            _print("operators coupons keys new NAME --role admin")
        else:
            _print("Authentication is off (AUTH=off): everyone on this machine may do everything. AUTH=on turns it on.")
        _print("Every port listens on loopback only. Press Ctrl-C to stop.")
        while True:
            signal.pause()


def _request_stop(*_: object) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the shutdown
    _print("stopping")
    raise StopRequested


def _print(line: str, file: TextIO = sys.stdout) -> None:
    """Print a line. Once nobody reads, the stack goes on: its log file has the same lines."""
    try:
        print(line, file=file, flush=True)
    except OSError:  # the reader of a pipe has gone, or the terminal; what follows, and what Python holds, goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


if __name__ == "__main__":
    sys.exit(main())
