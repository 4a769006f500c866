"""A receiver that failed is left alone for a while, so that nobody waits for it in vain (a circuit breaker)."""

import time
from collections.abc import Callable

from service.clock import jitter
from service.domain.retry import backoff_seconds

_CEILING_SECONDS = 10.0
#: a receiver may ask for more, within reason
_ASKED_MOST_SECONDS = 300.0


class CircuitBreaker:
    """Grows with each failure in a row, up to ten seconds, and ends with the first success."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures = 0
        self._until = 0.0

    @property
    def open_seconds(self) -> float:
        """How long it still is to be left alone; 0: it may be tried."""
        return max(0.0, self._until - self._clock())

    def record_failure(self, asked_seconds: float = 0.0) -> None:
        """It did not take a notice; `asked_seconds` is what it asked to be given (Retry-After)."""
        self._failures += 1
        pause = backoff_seconds(self._failures, max_seconds=_CEILING_SECONDS, jitter=jitter())
        self._until = self._clock() + max(pause, min(asked_seconds, _ASKED_MOST_SECONDS))

    def record_success(self) -> None:
        """It took one."""
        self._failures = 0
        self._until = 0.0
