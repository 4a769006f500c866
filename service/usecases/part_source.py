"""Reads a part of the system for whoever asks, without letting them wait for one that hangs."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, NamedTuple, TypeVar

from service.domain.errors import Unavailable
from service.domain.failures import classify
from service.log import get_logger
from service.log_events import LogEvent

#: a part is read at most this often, however many ask
_INTERVAL_SECONDS = 1.0
_log = get_logger(__name__)

Result = TypeVar("Result")


class Answer(NamedTuple, Generic[Result]):
    """What a part answered, and the seconds that it took."""

    result: Result
    seconds: float
    #: when it answered, by the monotonic clock
    at: float


class Source(Generic[Result]):
    """A part that is read in a thread of its own, one read at a time.

    A read that does not end is not started again: each would hold another connection.
    """

    def __init__(self, part: str, read: Callable[[], Result]) -> None:
        self.part = part
        self._read = read
        self._executor = ThreadPoolExecutor(1, f"metrics {part}")
        self._lock = threading.Lock()
        self._began = 0.0
        self._running: Future[Answer[Result]] | None = None
        #: why the last read that has ended failed
        self._failure: str | None = None

    def ask(self) -> Future[Answer[Result]]:
        """Start to read, unless the last read is running or not old yet; return its result."""
        with self._lock:
            now = time.monotonic()
            if self._running is None or (self._running.done() and now > self._began + _INTERVAL_SECONDS):
                self._began = now
                self._running = self._executor.submit(self._timed_read)
            return self._running

    def _timed_read(self) -> Answer[Result]:
        began = time.monotonic()
        try:
            result = self._read()
        except Exception as error:
            reason = str(error) if isinstance(error, Unavailable) else str(classify(error))
            if self._failure is None:
                _log.warning(LogEvent.PART_NOT_READ, part=self.part, reason=reason)
            self._failure = reason
            raise
        self._failure = None
        ended = time.monotonic()
        return Answer(result, ended - began, ended)

    def answer(self, timeout_seconds: float) -> Answer[Result] | None:
        """Return the answer, or None if the read fails or takes longer."""
        asked = self.ask()
        wait([asked], timeout=timeout_seconds)
        return answer_of(asked)

    @property
    def fault(self) -> str:
        """Why there is no answer."""
        return self._failure or f"no answer for {time.monotonic() - self._began:.1f} s"

    def close(self) -> None:
        """End the thread after the read in progress, which has time limits of its own."""
        self._executor.shutdown()


def answer_of(asked: Future[Answer[Result]]) -> Answer[Result] | None:
    """Return the answer, or None if there is none yet or the read failed."""
    return asked.result() if asked.done() and asked.exception() is None else None
