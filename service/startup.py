"""How every process starts: settings, log, clock; or one clear message, exit status 2, no stack trace."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from service import clock, config, crash_points, log
from service.config import Settings
from service.domain.errors import CouponsError


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turns the service's own errors into a message on standard error and the end of the process."""
    try:
        yield
    except CouponsError as error:
        print(f"cannot start: {error}", file=sys.stderr)  # noqa: T201  # for whoever starts it
        sys.exit(2)


def configure_process() -> Settings:
    """The settings, with the log, the clock and the crash points as they say; raises Misconfigured."""
    settings = config.load()
    log.configure(settings)
    clock.configure(settings)
    crash_points.configure(settings)
    return settings
