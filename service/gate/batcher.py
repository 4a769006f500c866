"""Combines the concurrent calls of many callers into one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from service.domain.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls a function with the items of all waiting callers. Items submitted during a call are sent in the next one.

    Calls start at least `min_interval_seconds` apart. Batches grow under load; a single caller is not delayed.

    part: what `call` depends on, for the message of Unavailable.
    call: returns one result for each item, in the same order; what it raises is raised to every caller of the batch.
    max_batch_size: items in one call.
    max_waiting: items that may wait for a call; more are refused.
    """

    def __init__(
        self,
        part: str,
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        max_batch_size: int = 500,
        max_waiting: int = 20_000,
        min_interval_seconds: float = 0,
    ) -> None:
        self._part = part
        self._call = call
        self._max_batch_size = max_batch_size
        self._max_waiting = max_waiting
        self._min_interval_seconds = min_interval_seconds
        self._next_call_at = 0.0
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        """Return the future result for an item; raise Unavailable at once when too many items wait."""
        if len(self._waiting) >= self._max_waiting:
            raise Unavailable(self._part, "too many requests wait for it")
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, result))
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        return result

    async def _run(self) -> None:
        """Call until no item waits. A caller that was cancelled has a future that is done: it is skipped."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            if (pause := self._next_call_at - loop.time()) > 0:
                await asyncio.sleep(pause)
            self._next_call_at = loop.time() + self._min_interval_seconds
            batch, self._waiting = self._waiting[: self._max_batch_size], self._waiting[self._max_batch_size :]
            try:
                results = await self._call([item for item, _ in batch])
                for (_, future), result in zip(batch, results, strict=True):
                    if not future.done():
                        future.set_result(result)
            except Exception as error:  # noqa: BLE001  # raised to every caller
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
        self._task = None
