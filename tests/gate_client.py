"""A blocking client of the asynchronous gate, which sends the requests of many users in one call."""

import asyncio
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis as AsyncRedis

from service.gate.async_gate import Admission, Admissions, AsyncGate, SeatRequest
from service.gate.keys import Verdict
from tests.builders import AT_MS


class GateClient:
    """Runs each call in an event loop of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def admit(self, *seats: SeatRequest) -> list[Admission]:
        """Return the gate's verdict on each seat request; all are in one call, at the time of the first."""
        others = self._call(seats, ()).others
        return [others.get(index, Admission(Verdict.ADMITTED, seat.request_id)) for index, seat in enumerate(seats)]

    def progress(self) -> Mapping[int, int]:
        """Return the next offset to decide by partition, as a response of the gate carries it."""
        return self._call((), ()).progress

    def record_offset(self, seat: SeatRequest, offset: int) -> None:
        """Record in the gate that the broker has acknowledged the request."""
        self._call((), [(seat, offset)])

    def _call(self, seats: Sequence[SeatRequest], acknowledged: Sequence[tuple[SeatRequest, int]]) -> Admissions:
        async def call() -> Admissions:
            async with AsyncRedis.from_url(self._url) as redis:
                return await AsyncGate(redis).admit(seats, seats[0].requested_at_ms if seats else AT_MS, acknowledged)

        return asyncio.run(call())


def seat(user_id: int, request_id: str = "", coupon_id: int = 1, now_ms: int = AT_MS) -> SeatRequest:
    """A seat request; the default request id tells users apart."""
    return SeatRequest(coupon_id, user_id, request_id or f"request-of-{user_id}", now_ms)
