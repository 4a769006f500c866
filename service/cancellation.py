"""Ends work early that runs in another thread."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import TypeVar

from service.domain.errors import Cancelled

Item = TypeVar("Item")
#: an interruption may come before the step that it was meant for, so it is repeated
_INTERRUPT_AGAIN_SECONDS = 1.0


class Cancellation:
    """One thread requests the end; the other one, which works, calls `check` between its steps."""

    def __init__(self) -> None:
        self._requested = Event()
        self._lock = Lock()
        self._interrupter: Thread | None = None

    def request(self) -> None:
        """Let the next `check` raise, and interrupt the step in progress; does not block."""
        with self._lock:
            if self._interrupter is not None and not self._requested.is_set():
                self._interrupter.start()
            self._requested.set()

    def check(self) -> None:
        """Raise Cancelled if the end was requested."""
        if self._requested.is_set():
            raise Cancelled("the caller does not wait for the result any more")

    @contextmanager
    def interrupting(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """Call `interrupt` in another thread, until the block has ended, if the end is requested during the block.

        It may block, and makes the step in progress raise. Raises Cancelled in place of that error, and at the
        beginning if the end was requested before.
        """
        ended = Event()

        def interrupt_until_ended() -> None:
            interrupt()
            while not ended.wait(_INTERRUPT_AGAIN_SECONDS):
                interrupt()

        interrupter = Thread(target=interrupt_until_ended, name="interrupter")
        with self._lock:
            self._interrupter = interrupter
        try:
            self.check()
            yield
        except Exception:
            self.check()
            raise
        finally:
            ended.set()
            with self._lock:
                self._interrupter = None
            if interrupter.ident is not None:
                interrupter.join()

    def watch(self, items: Iterable[Item]) -> Generator[Item]:
        """Yield the items; raise Cancelled before the next one if the end was requested, and close their generator."""
        try:
            for item in items:
                self.check()
                yield item
        finally:
            if isinstance(items, Generator):
                items.close()
