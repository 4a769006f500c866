"""Waits that may last so long and no longer, for so many at once that each should cost next to nothing."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


class SharedTimeout:
    """One timer for all who wait; asyncio.timeout sets one for each, most of them for what is there already."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        #: when each wait is over, the earliest first
        self._over_at: dict[asyncio.Task[object], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, awaitable: Awaitable[Result]) -> Result:
        """What is waited for; raises TimeoutError when it takes too long."""
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        self._over_at[task] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)
        try:
            return await awaitable
        except asyncio.CancelledError:
            if task in self._over_at or task.uncancel() > 0:
                raise  # someone else has ended it
            raise TimeoutError from None
        finally:
            self._over_at.pop(task, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for task, over_at in list(self._over_at.items()):
            if over_at > loop.time():
                self._timer = loop.call_at(over_at, self._look)
                return
            del self._over_at[task]
            task.cancel()
        self._timer = None
