"""A blocking client of the asynchronous gate, which sends the requests of many users in one call."""

import asyncio
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis as AsyncRedis

from service.domain.rate_limit import RateLimits
from service.gate.async_gate import Admission, Admissions, AsyncGate, SeatRequest
from service.gate.keys import ADMIT, Verdict
from tests.builders import AT_MS

_READ_TIME = "redis.call('TIME')"
_NO_LIMITS: RateLimits = {}


def admit_script_at(at_ms: int) -> str:
    """Return the gate's script with a clock that stands still: it reads the time in one place."""
    assert ADMIT.count(_READ_TIME) == 1
    return ADMIT.replace(_READ_TIME, f"{{ '{at_ms // 1000}', '{at_ms % 1000 * 1000}' }}")


class GateAt(AsyncGate):
    """The gate at a time that the test sets."""

    def __init__(self, redis: "AsyncRedis", limits: RateLimits = _NO_LIMITS) -> None:
        super().__init__(redis, limits)
        self._client = redis
        self.set_time(AT_MS)

    def set_time(self, at_ms: int) -> None:
        """Set the clock of the next calls, in milliseconds since 1970 UTC."""
        self._admit = self._client.register_script(admit_script_at(at_ms))


class GateClient:
    """Runs each call in an event loop of its own, at the time of its first seat request."""

    def __init__(self, url: str, limits: RateLimits = _NO_LIMITS) -> None:
        self._url = url
        self._limits = limits

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
                gate = GateAt(redis, self._limits)
                gate.set_time(seats[0].requested_at_ms if seats else AT_MS)
                return await gate.admit(seats, acknowledged)

        return asyncio.run(call())


def seat(user_id: int, request_id: str = "", coupon_id: int = 1, now_ms: int = AT_MS) -> SeatRequest:
    """A seat request; the default request id tells users apart."""
    return SeatRequest(coupon_id, user_id, request_id or f"request-of-{user_id}", now_ms)
