"""Configures a process at its start, or exits with one message on standard error and no stack trace."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from service import clock, config, crash_points, log
from service.config import Settings
from service.domain.errors import CouponsError

#: exit status of a process that cannot start and of a command that cannot be done
EXIT_STATUS = 2


@contextmanager
def exit_on_error(status: int = EXIT_STATUS) -> Iterator[None]:
    """Print the service's own errors to standard error and exit with `status`; other exceptions pass."""
    try:
        yield
    except CouponsError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  # the log may not be configured yet
        sys.exit(status)


def configure_process() -> Settings:
    """Load the settings, and configure the log, the clock and the crash points by them; raise Misconfigured."""
    settings = config.load()
    log.configure(settings)
    clock.configure(settings)
    crash_points.configure(settings)
    return settings
