"""The users of a row: they press until they are answered, some press twice, and some of their requests fail."""

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple, Self

import aiohttp

from service.verification.history import ClientAnswer

#: fails in the first attempt, in the first two, in every one
FAULTS = ("22012 1", "22012 2", "22012 9")
FAILING = 0.03
_PRESS_TWICE = 0.05
_ANSWER_SECONDS = 6.0
_AGAIN_SECONDS = 0.4
#: what a user waits at most, once the row is over; more than any promised recovery
_PATIENCE_SECONDS = 60.0


class Ask(NamedTuple):
    """One user's wish."""

    coupon_id: int
    user_id: int
    fault: str | None = None
    twice: bool = False


class Crowd:
    """`at_once` users at a time, at most `per_second` new ones, in an event loop of their own."""

    def __init__(
        self, api_url: str, history: list[ClientAnswer], asks: Iterator[Ask], per_second: float, at_once: int
    ) -> None:
        self.accepted = 0
        self.unanswered: list[Ask] = []
        self._api_url = api_url
        self._history = history
        self._asks = asks
        self._pause_seconds = at_once / per_second
        self._at_once = at_once
        self._over = threading.Event()
        self._patience_ends = float("inf")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._come()), name="crowd")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Lets no more users in and waits until those who press are answered."""
        self._patience_ends = time.monotonic() + _PATIENCE_SECONDS
        self._over.set()
        self._thread.join()

    async def _come(self) -> None:
        timeout = aiohttp.ClientTimeout(_ANSWER_SECONDS)
        connector = aiohttp.TCPConnector(limit=self._at_once)
        async with (
            aiohttp.ClientSession(self._api_url, connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as group,
        ):
            for place in range(self._at_once):
                group.create_task(self._one_after_another(session, place / self._at_once))

    async def _one_after_another(self, session: aiohttp.ClientSession, part: float) -> None:
        await asyncio.sleep(self._pause_seconds * part)
        while not self._over.is_set() and (ask := next(self._asks, None)):
            began = time.monotonic()
            for _ in range(1 + ask.twice):
                await self._press(session, ask)
            await asyncio.sleep(max(0.0, began + self._pause_seconds - time.monotonic()))

    async def _press(self, session: aiohttp.ClientSession, ask: Ask) -> None:
        while (told := await _ask(session, ask)).outcome == "unknown":
            self._history.append(told)
            if time.monotonic() > self._patience_ends:
                self.unanswered.append(ask)
                return
            await asyncio.sleep(_AGAIN_SECONDS)
        self._history.append(told)
        self.accepted += told.outcome == "accepted"


async def _ask(session: aiohttp.ClientSession, ask: Ask) -> ClientAnswer:
    headers = {"Fault": ask.fault} if ask.fault else {}
    url, body = f"/coupons/{ask.coupon_id}/issuances", {"user_id": ask.user_id}
    try:
        async with session.post(url, json=body, headers=headers) as answer:
            return _told(ask, answer.status, answer.headers.get("Location"), await answer.json())
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return ClientAnswer(ask.user_id, ask.coupon_id, "unknown")


def _told(ask: Ask, status: int, location: str | None, body: Mapping[str, str]) -> ClientAnswer:
    if status >= 500:
        return ClientAnswer(ask.user_id, ask.coupon_id, "unknown")
    request_id = location.removeprefix("/issuances/") if location else None
    outcome = "accepted" if status == 202 else "refused"
    return ClientAnswer(ask.user_id, ask.coupon_id, outcome, body.get("code"), request_id)  # type: ignore[arg-type]


def asks(coupons: Sequence[int], weights: Sequence[int], random: Random, failing: float = FAILING) -> Iterator[Ask]:
    """Endless wishes, a new user each, most for the first coupons; that share of them fails."""
    user_id = 0
    while True:
        user_id += 1
        (coupon,) = random.choices(coupons, weights)
        fault = random.choice(FAULTS) if random.random() < failing else None
        yield Ask(coupon, user_id, fault, twice=random.random() < _PRESS_TWICE)
