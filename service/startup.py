"""Configures a process at its start, or exits with one message on standard error and no stack trace."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        print(f"error: {log.escape_lines(str(error))}", file=sys.stderr)  # noqa: T201  # the log may not be configured yet
        sys.exit(status)


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
