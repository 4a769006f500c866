"""Specification of one supervised process: how it is prepared, started, health-checked and stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGTERM

HTTP_TIMEOUT_SECONDS = 2.0

RunCommand = Callable[[Sequence[str]], None]
"""Runs a command to its end with the process's environment and log; raises CannotStart unless it exits with 0."""


def nothing_to_prepare(run: RunCommand) -> None:
    """Preparation for a process that needs none."""


def always_healthy() -> bool:
    """Health check for a process that counts as healthy once it has started."""
    return True


def http_ok(host: str, port: int, path: str) -> bool:
    """Health check over HTTP: return whether a GET returns status 200."""
    connection = HTTPConnection(host, port, timeout=HTTP_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == HTTPStatus.OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


@dataclass(frozen=True)
class ProcessSpec:
    """One process; `prepare` runs before every start, `healthy` is polled after it until it returns True.

    A stop sends `stop_signal` and, after `stop_timeout_seconds`, SIGKILL.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    healthy: Callable[[], bool] = always_healthy
    prepare: Callable[[RunCommand], None] = nothing_to_prepare
    stop_signal: int = SIGTERM
    stop_timeout_seconds: float = 10.0
    start_timeout_seconds: float = 60.0
