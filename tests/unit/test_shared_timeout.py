"""SharedTimeout: each wait expires at its own time, and a cancellation from outside stays a cancellation."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from service.api.shared_timeout import SharedTimeout

SECONDS = 0.05


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


async def _seconds_until_timeout(shared: SharedTimeout) -> float:
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    with pytest.raises(TimeoutError):
        await shared.wait(_never())
    return loop.time() - started_at


def test_a_result_in_time_is_returned() -> None:
    """The caller gets a value or an exception that comes at once or a little later."""

    async def fail() -> None:
        raise KeyError

    async def wait() -> str:
        shared = SharedTimeout(SECONDS)
        with pytest.raises(KeyError):
            await shared.wait(fail())
        return await shared.wait(asyncio.sleep(SECONDS / 5, "result"))

    assert asyncio.run(wait()) == "result"


def test_each_wait_expires_at_its_own_time() -> None:
    """Two waits that start one after the other expire one after the other, none early; so does a later one."""

    async def wait() -> list[float]:
        shared = SharedTimeout(SECONDS)
        first = asyncio.create_task(_seconds_until_timeout(shared))
        await asyncio.sleep(SECONDS / 2)
        second = await _seconds_until_timeout(shared)
        return [await first, second, await _seconds_until_timeout(shared)]

    assert all(seconds >= SECONDS for seconds in asyncio.run(wait()))


def test_a_wait_that_is_cancelled_from_outside_is_cancelled() -> None:
    """A cancelled task ends as cancelled, not with TimeoutError."""

    async def wait() -> bool:
        task = asyncio.create_task(SharedTimeout(SECONDS).wait(_never()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(wait())


@pytest.mark.parametrize("awaited", [asyncio.sleep, None], ids=["returns", "never returns"])
def test_the_task_can_wait_again_afterwards(awaited: Callable[[float], Awaitable[None]] | None) -> None:
    """After a wait, whatever its outcome, the same task can wait for other things."""

    async def wait() -> int:
        shared = SharedTimeout(SECONDS)
        with suppress(TimeoutError):
            await shared.wait(awaited(0) if awaited else _never())
        await asyncio.sleep(SECONDS * 2)
        task = asyncio.current_task()
        return task.cancelling() if task else -1

    assert asyncio.run(wait()) == 0
