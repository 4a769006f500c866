"""Waits with one timer for all: each ends when it should, and only by whom it should."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from service.api.shared_timeout import SharedTimeout

SECONDS = 0.05


async def _never() -> None:
    await asyncio.get_running_loop().create_future()


async def _ended_after(patience: SharedTimeout) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await patience.wait(_never())
    return loop.time() - began


def test_what_comes_in_time_is_handed_on() -> None:
    """A value or an error that is there at once, or a little later, is what the caller gets."""

    async def fail() -> None:
        raise KeyError

    async def wait() -> str:
        patience = SharedTimeout(SECONDS)
        with pytest.raises(KeyError):
            await patience.wait(fail())
        return await patience.wait(asyncio.sleep(SECONDS / 5, "there"))

    assert asyncio.run(wait()) == "there"


def test_each_wait_has_its_own_end() -> None:
    """Two that begin one after the other end one after the other, none early; and so does one long after them."""

    async def wait() -> list[float]:
        patience = SharedTimeout(SECONDS)
        first = asyncio.create_task(_ended_after(patience))
        await asyncio.sleep(SECONDS / 2)
        second = await _ended_after(patience)
        return [await first, second, await _ended_after(patience)]

    assert all(seconds >= SECONDS for seconds in asyncio.run(wait()))


def test_a_wait_that_someone_else_ends_is_cancelled() -> None:
    """A task that is told to stop stops; it does not hear that its patience is at an end."""

    async def wait() -> bool:
        task = asyncio.create_task(SharedTimeout(SECONDS).wait(_never()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(wait())


@pytest.mark.parametrize("ended", [asyncio.sleep, None], ids=["comes", "never comes"])
def test_the_task_goes_on_unharmed(ended: Callable[[float], Awaitable[None]] | None) -> None:
    """After a wait, whatever its end, the same task can wait for other things."""

    async def wait() -> int:
        patience = SharedTimeout(SECONDS)
        with suppress(TimeoutError):
            await patience.wait(ended(0) if ended else _never())
        await asyncio.sleep(SECONDS * 2)
        task = asyncio.current_task()
        return task.cancelling() if task else -1

    assert asyncio.run(wait()) == 0
