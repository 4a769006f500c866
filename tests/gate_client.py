"""A blocking client of the asynchronous gate, which sends the requests of many users at once."""

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis as AsyncRedis

from service.gate.async_gate import Admission, AsyncGate, SeatRequest
from tests.builders import AT_MS


class GateClient:
    """Runs each call in an event loop of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def admit(self, *seats: SeatRequest) -> list[Admission]:
        """Return the gate's response to each seat request; all are sent at the same time."""
        return asyncio.run(self._admit(seats))

    async def _admit(self, seats: Sequence[SeatRequest]) -> list[Admission]:
        async with AsyncRedis.from_url(self._url) as redis:
            gate = AsyncGate(redis)
            return await asyncio.gather(*(gate.admit(seat) for seat in seats))

    def record_offset(self, seat: SeatRequest, offset: int) -> None:
        """Record in the gate that the broker has acknowledged the request."""

        async def record() -> None:
            async with AsyncRedis.from_url(self._url) as redis:
                await AsyncGate(redis).record_offsets([(seat, offset)])

        asyncio.run(record())


def seat(user_id: int, request_id: str = "", coupon_id: int = 1, now_ms: int = AT_MS) -> SeatRequest:
    """A seat request; the default request id tells users apart."""
    return SeatRequest(coupon_id, user_id, request_id or f"request-of-{user_id}", now_ms)
