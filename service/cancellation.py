"""Ends work early that runs in another thread."""

from collections.abc import Generator, Iterable
from threading import Event
from typing import TypeVar

from service.domain.errors import Cancelled

Item = TypeVar("Item")


class Cancellation:
    """One thread requests the end; the other one, which works, calls `check` between its steps."""

    def __init__(self) -> None:
        self._requested = Event()

    def request(self) -> None:
        """Let the next `check` raise."""
        self._requested.set()

    def check(self) -> None:
        """Raise Cancelled if the end was requested."""
        if self._requested.is_set():
            raise Cancelled("the caller does not wait for the result any more")

    def watch(self, items: Iterable[Item]) -> Generator[Item]:
        """Yield the items; raise Cancelled before the next one if the end was requested, and close their generator."""
        try:
            for item in items:
                self.check()
                yield item
        finally:
            if isinstance(items, Generator):
                items.close()
