"""What the connections of one server share: the sweep that ends those past their deadline, and their limit."""

import asyncio
import logging
import resource
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol

from service.limits import MAX_CONNECTIONS
from service.log import get_logger
from service.log_events import LogEvent

#: how often deadlines are compared, and how exact they are
SWEEP_SECONDS = 0.5
#: files that the process needs beside its connections: databases, brokers, logs
RESERVED_FILES = 128
#: share of the possible connections above which a response ends its connection instead of leaving it idle
_CROWDED = 0.8
_log = get_logger(__name__)


def max_connections() -> int:
    """Return how many connections the process may have, by MAX_CONNECTIONS and by the files that it may open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, files - min(RESERVED_FILES, files // 2))


def raise_file_limit() -> None:
    """Let the process open as many files as the system allows, and log how many connections that are.

    Each connection is a file. Service managers give a process 1,024, so that older programs do not fail with more.
    """
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    is_limited = hard_limit != resource.RLIM_INFINITY  # macOS has no hard limit, and refuses to have no soft one
    wanted = hard_limit if is_limited else MAX_CONNECTIONS + RESERVED_FILES
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard_limit))
    allowed, files = max_connections(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    level = logging.INFO if allowed >= MAX_CONNECTIONS // 2 else logging.WARNING
    _log.log(level, LogEvent.CONNECTIONS_ALLOWED, connections=allowed, open_files=files)


class GuardedConnection(Protocol):
    """A connection with a deadline."""

    #: in the event loop's time; infinity while the server has to act
    deadline: float

    def on_deadline(self) -> None:
        """End the connection, or set another deadline."""


class ConnectionGuard:
    """Compares the deadlines of all connections in one sweep: a timer for each request would cost more than it guards.

    The sweep runs while there are connections. It also logs what was rejected since the last one, in one line, so that
    nobody can fill the log.
    """

    def __init__(self, connections: Collection[GuardedConnection]) -> None:
        """`connections` is the server's own set of open connections."""
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._max_connections = max_connections()
        #: rejections since the last sweep, by status
        self.rejections: Counter[int] = Counter()
        #: the event loop's time at the last sweep, from which deadlines are counted
        self.now = 0.0
        #: so many connections are open that none should stay idle
        self.crowded = False

    def admits_another(self) -> bool:
        """Return whether a connection that was just added may stay; begin to sweep."""
        if self._timer is None:
            self._sweep()
        return len(self._connections) <= self._max_connections

    @property
    def is_full(self) -> bool:
        """Whether so many connections are open beyond the limit that none of them may linger."""
        return len(self._connections) > self._max_connections + min(RESERVED_FILES, self._max_connections) // 2

    def _sweep(self) -> None:
        self.now = self._loop.time()
        self.crowded = len(self._connections) > _CROWDED * self._max_connections
        try:
            for connection in list(self._connections):
                if connection.deadline <= self.now:
                    connection.on_deadline()
        finally:  # a defect in one connection must not end the sweep
            if self.rejections:
                by_status = {f"status_{status:d}": count for status, count in sorted(self.rejections.items())}
                _log.warning(LogEvent.REQUESTS_REJECTED, **by_status)
                self.rejections.clear()
            self._timer = self._loop.call_later(SWEEP_SECONDS, self._sweep) if self._connections else None
