"""The gate's asyncio client: one Lua call admits many requests, another records many offsets."""

from collections.abc import Awaitable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from service.domain.errors import Unavailable
from service.gate.batcher import Batcher
from service.gate.client import mapped_errors
from service.gate.keys import (
    ADMIT,
    CHECK_WRITABLE,
    PROGRESS_KEY,
    RECORD_OFFSETS,
    RELEASE,
    WRITE_CHECK_KEY,
    WRITE_CHECK_SECONDS,
    Verdict,
    offsets_key,
    parse_number,
)
from service.limits import MAX_ID

#: Minimum time between two calls. The fixed CPU cost of a call is about that of accepting the requests of 2 ms.
_MIN_INTERVAL_SECONDS = 0.002
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[list[str], msgspec.Raw]).decode
_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
_unpack_numbers = msgspec.msgpack.Decoder(list[_Number], strict=False).decode
_unpack_number = msgspec.msgpack.Decoder(_Number, strict=False).decode
_unpack_parts = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_VERDICTS = {str(verdict): verdict for verdict in Verdict}


class SeatRequest(NamedTuple):
    """A request for a seat: this user, with this coupon, under this request id."""

    coupon_id: int
    user_id: int
    request_id: str
    requested_at_ms: int


class Admission(NamedTuple):
    """The gate's response to a seat request."""

    verdict: Verdict
    #: the request id that has the seat; with NOT_OPEN the opening time in milliseconds since 1970 UTC
    detail: str
    #: next offset to decide, by partition, as last published to the gate
    progress: dict[int, int]


class AsyncGate:
    """The gate's client for the API; every call raises Unavailable when Redis does not answer."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._admit = redis.register_script(ADMIT)
        self._release = redis.register_script(RELEASE)
        self._record_offsets = redis.register_script(RECORD_OFFSETS)
        self._check_writable = redis.register_script(CHECK_WRITABLE)
        self._admissions: Batcher[SeatRequest, Admission] = Batcher(
            "Redis", self.admit_many, min_interval_seconds=_MIN_INTERVAL_SECONDS
        )

    def admit(self, seat: SeatRequest) -> Awaitable[Admission]:
        """Take the seat, or return why it is refused."""
        return self._admissions.submit(seat)

    async def record_offsets(self, acknowledged: Sequence[tuple[SeatRequest, int]]) -> None:
        """Record that the broker has acknowledged these requests, each with its offset."""
        fields: list[str] = []
        for seat, offset in acknowledged:
            fields += (str(seat.coupon_id), str(seat.user_id), seat.request_id, str(offset))
        with mapped_errors():
            await self._record_offsets(args=[_pack(fields)])

    async def release(self, seat: SeatRequest) -> None:
        """Release the seat if it still is this request's and no repeat has been admitted since `requested_at_ms`."""
        with mapped_errors():
            await self._release(args=[seat.requested_at_ms, seat.coupon_id, seat.user_id, seat.request_id])

    async def read_offsets(self, coupon_id: int, user_id: int, partition: int) -> tuple[int | None, int | None]:
        """Return the offset of the user's request and the partition's next offset to decide; None where not known."""
        with mapped_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hget(offsets_key(coupon_id), str(user_id))
                pipe.hget(PROGRESS_KEY, str(partition))
                offset, progress = await pipe.execute()
        return parse_number(offset), parse_number(progress)

    async def require_writable(self) -> None:
        """Raise Unavailable when Redis does not answer or refuses a write, NotPermitted when it refuses a right.

        INFO has a right of its own: without it a server that has lost its data is not noticed.
        """
        with mapped_errors():
            await self._check_writable(args=[WRITE_CHECK_KEY, WRITE_CHECK_SECONDS])
            await self._redis.info("server")

    async def admit_many(self, seats: Sequence[SeatRequest]) -> list[Admission]:
        """Take seats in one Lua call, in the order given."""
        fields: list[str] = []
        for seat in seats:
            fields += (str(seat.coupon_id), str(seat.user_id), seat.request_id)
        with mapped_errors():
            reply: Any = await self._admit(args=[seats[0].requested_at_ms, _pack(fields)])
        try:
            verdicts, packed_progress = _unpack(reply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable("Redis", f"it has a seat that is not text: {error}") from error
        progress = _progress_of(packed_progress)
        pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
        return [Admission(_VERDICTS[verdict], detail, progress) for verdict, detail in pairs]


def _progress_of(packed: bytes) -> dict[int, int]:
    """Return the next offsets by partition; what is not a pair of numbers is left out, which costs only positions."""
    flat: Sequence[int | None]
    try:
        flat = _unpack_numbers(packed)
    except msgspec.ValidationError:
        flat = [_number_or_none(part) for part in _unpack_parts(packed)]
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {partition: offset for partition, offset in pairs if partition is not None and offset is not None}


def _number_or_none(packed: bytes) -> int | None:
    try:
        return _unpack_number(packed)
    except msgspec.ValidationError:
        return None
