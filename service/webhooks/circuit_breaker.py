"""Circuit breaker: sends no requests to a failed receiver for a period."""

import time
from collections.abc import Callable

from service.clock import jitter
from service.domain.retry import backoff_seconds

_MAX_PAUSE_SECONDS = 10.0
#: limit on the pause that a receiver may request
_MAX_RETRY_AFTER_SECONDS = 300.0


class CircuitBreaker:
    """Each failure opens it. It closes when the pause ends.

    The pause doubles with consecutive failures up to 10 s; a Retry-After extends it up to 300 s. A success resets the
    count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._open_until = 0.0

    @property
    def open_seconds(self) -> float:
        """Seconds until the next request may be made; 0: now."""
        return max(0.0, self._open_until - self._clock())

    def record_failure(self, retry_after_seconds: float = 0.0) -> None:
        """Open after a failed request, for at least the time that the receiver asked for, up to five minutes."""
        self._failures += 1
        pause = backoff_seconds(self._failures, max_seconds=_MAX_PAUSE_SECONDS, jitter=jitter())
        self._open_until = self._clock() + max(pause, min(retry_after_seconds, _MAX_RETRY_AFTER_SECONDS))

    def record_success(self) -> None:
        """Close after a request that succeeded."""
        self._failures = 0
        self._open_until = 0.0
