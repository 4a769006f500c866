"""Combines what arrives one by one into calls for many at a time."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from service.domain.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchQueue(Generic[Item]):
    """Calls a function with all waiting items, one call at a time. Items added during a call are in the next one.

    Calls start at least `min_interval_seconds` apart. Batches grow under load; a single item is not delayed.

    part: what `call` depends on, for the message of Unavailable.
    call: takes a batch, and answers each of its items; it must not raise.
    max_batch_size: items in one call.
    max_waiting: items that may wait for a call; more are refused.
    on_idle: called when no item waits after a call.
    """

    def __init__(
        self,
        part: str,
        call: Callable[[list[Item]], Awaitable[None]],
        *,
        max_batch_size: int = 500,
        max_waiting: int = 20_000,
        min_interval_seconds: float = 0,
        on_idle: Callable[[], object] = lambda: None,
    ) -> None:
        self._part = part
        self._call = call
        self._max_batch_size = max_batch_size
        self._max_waiting = max_waiting
        self._min_interval_seconds = min_interval_seconds
        self._on_idle = on_idle
        self._next_call_at = 0.0
        self._waiting: list[Item] = []
        #: the event loop's time since which the items of the present batch have waited at most
        self.batch_waiting_since = 0.0
        self._arrivals = _Arrivals()
        #: runs until no item waits; None while idle
        self.task: asyncio.Task[None] | None = None

    def add(self, item: Item) -> None:
        """Add an item to the next call; raise Unavailable when too many items wait."""
        if len(self._waiting) >= self._max_waiting:
            raise Unavailable(self._part, "too many requests wait for it")
        self._waiting.append(item)
        if self.task is None:  # saves most items a function call
            self.call_soon()

    def call_soon(self) -> None:
        """Call soon, also if no item waits; do nothing while calls are made."""
        if self.task is None:  # a context of its own: a batch has no single request whose fields log lines could carry
            loop = asyncio.get_running_loop()
            self._arrivals = _Arrivals(loop.time())
            self.task = loop.create_task(self._call_while_items_wait(), context=Context())

    async def _call_while_items_wait(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(0)  # the event loop delivers the other items of this moment first
            while True:
                if (pause := self._next_call_at - loop.time()) > 0:
                    await asyncio.sleep(pause)
                self._next_call_at = loop.time() + self._min_interval_seconds
                batch, self._waiting = self._waiting[: self._max_batch_size], self._waiting[self._max_batch_size :]
                self.batch_waiting_since = self._arrivals.take(len(batch), len(self._waiting), loop.time())
                await self._call(batch)
                if not self._waiting:
                    break
        finally:
            self.task = None
            self._on_idle()


class _Arrivals:
    """Bounds the arrival of items from the times at which batches were taken, without a time for each item."""

    def __init__(self, since: float = 0.0) -> None:
        """`since`: when the first item arrived."""
        self._taken = 0
        #: a time, and the number of items that had arrived then: the next item arrived later
        self._marks = deque([(since, 0)])

    def take(self, count: int, left: int, now: float) -> float:
        """Note that so many items are taken and so many are left; return a time before which none of them arrived."""
        while len(self._marks) > 1 and self._marks[1][1] <= self._taken:
            self._marks.popleft()
        self._taken += count
        self._marks.append((now, self._taken + left))
        return self._marks[0][0]


class Batcher(Generic[Item, Result]):
    """A BatchQueue whose callers await the result for their item.

    call: returns one result for each item, in the same order; what it raises is raised to every caller of the batch.
    The other parameters are those of BatchQueue.
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
        self._call = call
        self._queue: BatchQueue[tuple[Item, asyncio.Future[Result]]] = BatchQueue(
            part,
            self._answer,
            max_batch_size=max_batch_size,
            max_waiting=max_waiting,
            min_interval_seconds=min_interval_seconds,
        )

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        """Return the future result for an item; raise Unavailable at once when too many items wait."""
        result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.add((item, result))
        return result

    async def _answer(self, batch: list[tuple[Item, "asyncio.Future[Result]"]]) -> None:
        """Call, and set the result of each caller. One that was cancelled has a future that is done: it is skipped."""
        try:
            results = await self._call([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:  # noqa: BLE001  # raised to every caller
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
