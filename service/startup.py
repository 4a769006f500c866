"""Configures a process at its start, or exits with one message on standard error and no stack trace."""

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

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
    """Configure a process that accepts connections: as configure_process does, and with as many files as it may open.

    Each connection is a file. Service managers give a process 1,024, so that older programs do not fail with more.
    """
    settings = configure_process()
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # a system may refuse the hard limit itself, for example if there is none
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    return settings
