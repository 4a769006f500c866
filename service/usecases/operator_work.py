"""Threads for calls that must not delay others: operators' calls, users' lists, and work that takes long."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

from service.cancellation import Cancellation
from service.domain.errors import TooBusy

#: above this many calls that wait for a thread, another one is refused
_MAX_WAITING = 100
_RETRY_AFTER_SECONDS = 5

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class BoundedThreads:
    """Runs short calls of one kind, a few at a time, in threads that no other calls need."""

    def __init__(self, what: str, threads: int) -> None:
        """`what` names the calls in the refusal; `threads` of them run at the same time."""
        self._what = what
        self._executor = ThreadPoolExecutor(threads, what)
        self._max_calls = threads + _MAX_WAITING
        #: for calls that may take long: requested by `close`
        self.cancellation = Cancellation()
        #: calls that run or wait
        self._calls = 0

    async def run(
        self, call: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Result:
        """Return what the call returns, in a thread; raise TooBusy if too many wait, and what the call raises."""
        if self._calls >= self._max_calls:
            raise TooBusy(f"Too many {self._what} wait.", _RETRY_AFTER_SECONDS)
        in_context = partial(copy_context().run, call, *arguments, **options)
        self._calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, in_context)
        finally:
            self._calls -= 1

    async def close(self) -> None:
        """Wait for the calls in progress; cancel those that have not begun, and those that use the cancellation."""
        self.cancellation.request()
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)


class BoundedStreams(BoundedThreads):
    """Makes the parts of long responses in one thread, in turn, and refuses a response above a limit at once."""

    def __init__(self, what: str, streams: int) -> None:
        """`what` names the responses in the refusal; `streams` of them may be sent at the same time."""
        super().__init__(what, 1)
        self._free = streams

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Keep a place for one response during the block; raise TooBusy if there is none."""
        if self._free == 0:
            raise TooBusy(f"No more {self._what} are sent at the same time.", _RETRY_AFTER_SECONDS)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class ExclusiveWork:
    """Runs one long call at a time in a thread of its own, and refuses every other one at once."""

    def __init__(self, what: str) -> None:
        """`what` names the work in the refusal."""
        self._what = what
        self._executor = ThreadPoolExecutor(1, what)
        self._running: Future[Any] | None = None
        self._cancellation = Cancellation()

    async def run(
        self, work: Callable[[Cancellation], Result], caller_gone: Callable[[], Coroutine[Any, Any, object]]
    ) -> Result:
        """Return what the work returns; raise TooBusy while another call runs, and what the work raises.

        The work is cancelled when `caller_gone` returns, or with the task that calls this. It keeps its place until it
        has ended, so that there is never a second one.
        """
        if self._running is not None and not self._running.done():
            raise TooBusy(f"Another {self._what} is running, and there is one at a time.", _RETRY_AFTER_SECONDS)
        self._cancellation = cancellation = Cancellation()
        self._running = running = self._executor.submit(work, cancellation)
        result, gone = asyncio.wrap_future(running), asyncio.ensure_future(caller_gone())
        try:
            await asyncio.wait((result, gone), return_when=asyncio.FIRST_COMPLETED)
            if not result.done():
                cancellation.request()
            return await result
        finally:
            cancellation.request()
            gone.cancel()

    async def close(self) -> None:
        """Cancel the work and wait for its end."""
        self._cancellation.request()
        await asyncio.to_thread(self._executor.shutdown)
