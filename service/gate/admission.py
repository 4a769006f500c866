"""Step 2, from asyncio: one Lua call admits many requests, another notes many offsets."""

from collections.abc import Awaitable, Sequence
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from service.gate.answering import answering
from service.gate.gather import Gatherer
from service.gate.names import ADMIT, NOTE, PROGRESS, RELEASE, Verdict, offsets_key

#: a call costs as much as the requests of two milliseconds
_APART_SECONDS = 0.002
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[list[str], list[str]]).decode
_VERDICTS = {str(verdict): verdict for verdict in Verdict}


class Seat(NamedTuple):
    """A user's claim to a coupon."""

    coupon_id: int
    user_id: int
    request_id: str
    now_ms: int


class Judged(NamedTuple):
    """The gate's word on a request."""

    verdict: Verdict
    #: the request id that has the seat, or when the coupon opens
    detail: str
    #: next offset to decide, by partition, as far as the gate was told
    progress: dict[int, int]


class Gate:
    """The gate's client; every call raises Unavailable when Redis does not answer."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._admit = redis.register_script(ADMIT)
        self._release = redis.register_script(RELEASE)
        self._note = redis.register_script(NOTE)
        self._admissions: Gatherer[Seat, Judged] = Gatherer("Redis", self._admit_many, apart_seconds=_APART_SECONDS)

    def admit(self, seat: Seat) -> Awaitable[Judged]:
        """Takes the seat, or says why not."""
        return self._admissions.ask(seat)

    async def note(self, places: Sequence[tuple[Seat, int]]) -> None:
        """Notes that the broker has acknowledged these requests, and at which offsets they lie."""
        told: list[str] = []
        for seat, offset in places:
            told += (str(seat.coupon_id), str(seat.user_id), seat.request_id, str(offset))
        with answering():
            await self._note(args=[_pack(told)])

    async def release(self, seat: Seat) -> None:
        """Gives the seat back if it still is this request's and nobody tried it again since."""
        with answering():
            await self._release(args=[seat.now_ms, seat.coupon_id, seat.user_id, seat.request_id])

    async def ahead(self, coupon_id: int, user_id: int, partition: int) -> tuple[int | None, int | None]:
        """The offset of the user's request and the partition's next offset to decide, where known."""
        with answering():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(offsets_key(coupon_id), str(user_id))
                pipe.hget(PROGRESS, str(partition))
                offset, progress = await pipe.execute()
        return _number(offset), _number(progress)

    async def ping(self) -> None:
        """Raises Unavailable when Redis does not answer."""
        with answering():
            await self._redis.ping()

    async def _admit_many(self, seats: Sequence[Seat]) -> list[Judged]:
        asked: list[str] = []
        for seat in seats:
            asked += (str(seat.coupon_id), str(seat.user_id), seat.request_id)
        with answering():
            answer: Any = await self._admit(args=[seats[0].now_ms, _pack(asked)])
        verdicts, progress = _unpack(answer)
        told = {int(partition): int(at) for partition, at in zip(progress[::2], progress[1::2], strict=True)}
        pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
        return [Judged(_VERDICTS[verdict], detail, told) for verdict, detail in pairs]


def _number(text: bytes | None) -> int | None:
    return None if text is None else int(text)
