"""Callers that come at the same time share a call, and each gets the answer to its own item."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.contextvars import bind_contextvars, get_contextvars

from service.domain.errors import Unavailable
from service.gate.batcher import Batcher, BatchQueue, _Arrivals

_INTERVAL_SECONDS = 0.02


class Doubler:
    """A call that lasts until `release`; it doubles numbers, and fails for a batch with a negative one."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.began = asyncio.Semaphore(0)
        self._released = asyncio.Semaphore(0)

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.began.release()
        await self._released.acquire()
        if min(numbers) < 0:
            raise Unavailable("The test", "there is a negative number")
        return [2 * number for number in numbers]

    def release(self, calls: int = 100) -> None:
        """Let so many calls end."""
        for _ in range(calls):
            self._released.release()


def test_the_wait_of_a_batch_is_bounded_by_the_time_of_an_earlier_one() -> None:
    """Also while more items wait than a batch takes: those at the front arrived before the last batches were taken."""
    arrivals = _Arrivals(1.0)

    assert arrivals.take(2, 0, 10.0) == 1.0  # the first came at 1
    assert arrivals.take(2, 3, 20.0) == 10.0  # these came after the first batch
    assert arrivals.take(2, 4, 30.0) == 10.0  # these waited at 20 already
    assert arrivals.take(2, 2, 40.0) == 10.0  # one of these did as well
    assert arrivals.take(2, 0, 50.0) == 20.0
    assert arrivals.take(1, 0, 60.0) == 50.0


def test_items_that_come_during_a_call_share_the_next_one() -> None:
    """One call at a time, and at most `max_batch_size` items in each."""

    async def scenario() -> tuple[list[list[int]], list[int]]:
        call = Doubler()
        batcher = Batcher("The test", call, max_batch_size=3)
        results = [batcher.submit(number) for number in (1, 2)]
        await call.began.acquire()
        results += [batcher.submit(number) for number in (3, 4, 5, 6)]
        call.release()
        return call.batches, await asyncio.gather(*results)

    assert asyncio.run(scenario()) == ([[1, 2], [3, 4, 5], [6]], [2, 4, 6, 8, 10, 12])


def test_an_error_is_raised_to_the_callers_of_its_batch_only() -> None:
    """The next batch is answered."""

    async def scenario() -> tuple[list[object], int]:
        call = Doubler()
        batcher = Batcher("The test", call)
        failed = [batcher.submit(number) for number in (-1, 2)]
        await call.began.acquire()
        other = batcher.submit(3)
        call.release()
        return list(await asyncio.gather(*failed, return_exceptions=True)), await other

    errors, result = asyncio.run(scenario())

    assert [type(error) for error in errors] == [Unavailable, Unavailable]
    assert result == 6


def test_a_cancelled_caller_does_not_disturb_the_others() -> None:
    """Its item is in the call all the same."""

    async def scenario() -> tuple[list[list[int]], int]:
        call = Doubler()
        batcher = Batcher("The test", call)
        cancelled, other = batcher.submit(1), batcher.submit(2)
        await call.began.acquire()
        cancelled.cancel()
        call.release()
        return call.batches, await other

    assert asyncio.run(scenario()) == ([[1, 2]], 4)


def test_more_than_the_limit_of_waiting_items_are_refused() -> None:
    """The items of a call in progress do not wait any more."""

    async def scenario() -> list[int]:
        call = Doubler()
        batcher = Batcher("The test", call, max_waiting=2)
        results = [batcher.submit(1)]
        await call.began.acquire()
        results += [batcher.submit(number) for number in (2, 3)]
        with pytest.raises(Unavailable, match="too many requests wait"):
            batcher.submit(4)
        call.release()
        return await asyncio.gather(*results)

    assert asyncio.run(scenario()) == [2, 4, 6]


def test_calls_start_at_least_the_interval_apart() -> None:
    """Also those of a queue that was idle between them."""

    async def scenario() -> float:
        idle = asyncio.Semaphore(0)

        async def call(_: list[int]) -> None:
            pass

        queue = BatchQueue("The test", call, min_interval_seconds=_INTERVAL_SECONDS, on_idle=idle.release)
        began = asyncio.get_running_loop().time()
        for number in range(4):
            queue.add(number)
            await idle.acquire()
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(scenario()) >= 3 * _INTERVAL_SECONDS * 0.99  # a timer may be early by the clock's resolution


def test_a_call_can_be_made_without_an_item() -> None:
    """One call, however often it is asked for meanwhile."""

    async def scenario() -> list[list[int]]:
        batches: list[list[int]] = []
        idle = asyncio.Event()

        async def call(batch: list[int]) -> None:
            batches.append(batch)

        queue = BatchQueue("The test", call, on_idle=idle.set)
        queue.call_soon()
        queue.call_soon()
        await idle.wait()
        assert queue.task is None
        return batches

    assert asyncio.run(scenario()) == [[]]


def test_a_batch_does_not_carry_the_log_fields_of_one_request() -> None:
    """The work for many requests must not be logged under the id of the first one."""

    async def scenario() -> dict[str, object]:
        async def fields(items: Sequence[int]) -> list[dict[str, object]]:
            return [get_contextvars() for _ in items]

        bind_contextvars(request_id="of the first")
        return await Batcher("The test", fields).submit(1)

    assert asyncio.run(scenario()) == {}
