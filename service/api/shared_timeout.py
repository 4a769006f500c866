"""One timer for many concurrent waits."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


class SharedTimeout:
    """One timer behind all waits of the same length.

    Most waits complete at once, so a timer for each (asyncio.timeout) would be wasted.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: maps each waiting task to its deadline in loop time, earliest deadline first
        self._expires_at: dict[asyncio.Task[object], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, awaitable: Awaitable[Result]) -> Result:
        """Return the awaitable's result; raise TimeoutError when it takes longer than `seconds`."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._expires_at[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._cancel_expired)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if task in self._expires_at or task.uncancel() > 0:
                raise  # cancelled by something else
            raise TimeoutError from None
        finally:
            self._expires_at.pop(task, None)

    def _cancel_expired(self) -> None:
        loop = asyncio.get_running_loop()
        for task, expires_at in list(self._expires_at.items()):
            if expires_at > loop.time():
                self._timer = loop.call_at(expires_at, self._cancel_expired)
                return
            del self._expires_at[task]
            task.cancel()
        self._timer = None
