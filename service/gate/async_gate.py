"""Step 2, from asyncio: one Lua call admits many requests, another notes many offsets."""

from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from service.gate.batcher import Batcher
from service.gate.errors import mapped_errors
from service.gate.keys import ADMIT, PROGRESS_KEY, RECORD_OFFSETS, RELEASE, Verdict, offsets_key

#: a call costs as much as the requests of two milliseconds
_APART_SECONDS = 0.002
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[list[str], list[str]]).decode
_VERDICTS = {str(verdict): verdict for verdict in Verdict}


class SeatRequest(NamedTuple):
    """A user's claim to a coupon."""

    coupon_id: int
    user_id: int
    request_id: str
    requested_at_ms: int


class Admission(NamedTuple):
    """The gate's word on a request."""

    verdict: Verdict
    #: the request id that has the seat, or when the coupon opens
    detail: str
    #: next offset to decide, by partition, as far as the gate was told
    progress: dict[int, int]


class AsyncGate:
    """The gate's client; every call raises Unavailable when Redis does not answer."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._admit = redis.register_script(ADMIT)
        self._release = redis.register_script(RELEASE)
        self._note = redis.register_script(RECORD_OFFSETS)
        self._admissions: Batcher[SeatRequest, Admission] = Batcher(
            "Redis", self._admit_many, min_interval_seconds=_APART_SECONDS
        )

    def admit(self, seat: SeatRequest) -> Awaitable[Admission]:
        """Takes the seat, or says why not."""
        return self._admissions.submit(seat)

    async def record_offsets(self, places: Sequence[tuple[SeatRequest, int]]) -> None:
        """Notes that the broker has acknowledged these requests, and at which offsets they lie."""
        told: list[str] = []
        for seat, offset in places:
            told += (str(seat.coupon_id), str(seat.user_id), seat.request_id, str(offset))
        with mapped_errors():
            await self._note(args=[_pack(told)])

    async def release(self, seat: SeatRequest) -> None:
        """Gives the seat back if it still is this request's and nobody tried it again since."""
        with mapped_errors():
            await self._release(args=[seat.requested_at_ms, seat.coupon_id, seat.user_id, seat.request_id])

    async def read_offsets(self, coupon_id: int, user_id: int, partition: int) -> tuple[int | None, int | None]:
        """The offset of the user's request and the partition's next offset to decide, where known."""
        with mapped_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(offsets_key(coupon_id), str(user_id))
                pipe.hget(PROGRESS_KEY, str(partition))
                offset, progress = await pipe.execute()
        return _number(offset), _number(progress)

    async def ping(self) -> None:
        """Raises Unavailable when Redis does not answer."""
        with mapped_errors():
            await self._redis.ping()

    async def _admit_many(self, seats: Sequence[SeatRequest]) -> list[Admission]:
        asked: list[str] = []
        for seat in seats:
            asked += (str(seat.coupon_id), str(seat.user_id), seat.request_id)
        with mapped_errors():
            answer: Any = await self._admit(args=[seats[0].requested_at_ms, _pack(asked)])
        verdicts, progress = _unpack(answer)
        told = {int(partition): int(at) for partition, at in zip(progress[::2], progress[1::2], strict=True)}
        pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
        return [Admission(_VERDICTS[verdict], detail, told) for verdict, detail in pairs]


def _number(text: bytes | None) -> int | None:
    return None if text is None else int(text)
