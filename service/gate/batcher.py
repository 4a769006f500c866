"""Gathers what many callers ask at the same moment into one call."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from service.domain.errors import Unavailable

Ask = TypeVar("Ask")
Answer = TypeVar("Answer")


class Batcher(Generic[Ask, Answer]):
    """While one call is under way, further callers queue up and travel together in the next.

    Calls begin at least `apart_seconds` after each other: so load makes them larger, and a lone caller never waits.
    """

    def __init__(
        self,
        part: str,
        call: Callable[[Sequence[Ask]], Awaitable[Sequence[Answer]]],
        *,
        max_batch_size: int = 500,
        max_waiting: int = 20_000,
        min_interval_seconds: float = 0,
    ) -> None:
        self._part = part
        self._call = call
        self._at_once = max_batch_size
        self._waiting_most = max_waiting
        self._apart_seconds = min_interval_seconds
        self._next_at = 0.0
        self._waiting: list[tuple[Ask, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, ask: Ask) -> "asyncio.Future[Answer]":
        """The answer to one question, or what the call raised; raises Unavailable at once when too many wait."""
        if len(self._waiting) >= self._waiting_most:
            raise Unavailable(self._part, "too many requests wait for it")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((ask, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return answer

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            if (pause := self._next_at - loop.time()) > 0:
                await asyncio.sleep(pause)
            self._next_at = loop.time() + self._apart_seconds
            batch, self._waiting = self._waiting[: self._at_once], self._waiting[self._at_once :]
            await self._answer(batch)
        self._task = None

    async def _answer(self, batch: list[tuple[Ask, "asyncio.Future[Answer]"]]) -> None:
        try:
            answers = await self._call([ask for ask, _ in batch])
        except Exception as error:  # noqa: BLE001  # every caller gets it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
