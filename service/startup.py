"""Configures a process at its start, or exits with one message on standard error and no stack trace."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from service import clock, config, crash_points, log
from service.config import Settings
from service.domain.errors import CouponsError
from service.server.connection_guard import raise_file_limit

#: exit status of a process that cannot start and of a command that cannot be done
EXIT_STATUS = 2


@contextmanager
def exit_on_error(status: int = EXIT_STATUS) -> Iterator[None]:
    """Print the service's own errors to standard error and exit with `status`; other exceptions pass."""
    try:
        yield
    except CouponsError as error:
        print_error(f"error: {error}")
        sys.exit(status)


def print_error(text: str) -> None:
    """Print to standard error, as the log may not be configured yet; if nobody reads, the exit status tells enough."""
    try:
        print(log.escape_lines(text), file=sys.stderr, flush=True)  # noqa: T201
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO) -> None:
    """Let what is printed from now on, and what Python still holds, go nowhere instead of failing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def configure_process(load: Callable[[], Settings] = config.load) -> Settings:
    """Load the settings, and configure the log, the clock and the crash points by them; raise Misconfigured."""
    settings = load()
    log.configure(settings)
    clock.configure(settings)
    crash_points.configure(settings)
    return settings


def configure_server() -> Settings:
    """Configure a process that accepts connections: as configure_process does, and with as many files as possible."""
    settings = configure_process()
    raise_file_limit()
    return settings
