"""The gate from outside asyncio: many users at its gate_client at once."""

import asyncio
from collections.abc import Sequence

from redis.asyncio import Redis as AsyncRedis

from service.gate.async_gate import Admission, AsyncGate, SeatRequest
from tests.builders import AT_MS


class GateClient:
    """The gate, a call at a time."""

    def __init__(self, url: str) -> None:
        self._url = url

    def admit(self, *seats: SeatRequest) -> list[Admission]:
        """What the gate says to each of these, who all ask at the same moment."""
        return asyncio.run(self._admit(seats))

    async def _admit(self, seats: Sequence[SeatRequest]) -> list[Admission]:
        async with AsyncRedis.from_url(self._url) as redis:
            gate = AsyncGate(redis)
            return await asyncio.gather(*(gate.admit(seat) for seat in seats))

    def note(self, seat: SeatRequest, offset: int) -> None:
        """Tells the gate of the broker's acknowledgement."""

        async def note() -> None:
            async with AsyncRedis.from_url(self._url) as redis:
                await AsyncGate(redis).record_offsets([(seat, offset)])

        asyncio.run(note())


def seat(user_id: int, name: str = "", coupon_id: int = 1, now_ms: int = AT_MS) -> SeatRequest:
    """A user's claim under an id of his own."""
    return SeatRequest(coupon_id, user_id, name or f"request-of-{user_id}", now_ms)
