"""The gate's asyncio client: one Lua call admits many requests and records many offsets."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import msgspec
from redis.asyncio import Redis

from service.domain.errors import Unavailable
from service.domain.rate_limit import LimitScope, RateLimits
from service.gate.client import eviction_fault, mapped_errors
from service.gate.keys import (
    ADMIT,
    CHECK_WRITABLE,
    NO_COUPON_ID,
    RELEASE,
    WRITE_CHECK_KEY,
    WRITE_CHECK_SECONDS,
    Verdict,
    offsets_key,
    parse_number,
    seats_key,
)
from service.limits import MAX_ID

#: maximum number of requests, and of offsets, in one call: a script passes a list to a command as arguments
MAX_REQUESTS_PER_CALL = 500
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[list[tuple[int, int, Verdict, str]], msgspec.Raw, int]).decode
_Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_ID)]
_unpack_numbers = msgspec.msgpack.Decoder(list[_Number], strict=False).decode
_unpack_number = msgspec.msgpack.Decoder(_Number, strict=False).decode
_unpack_parts = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class SeatRequest:
    """A request for a seat: this user, with this coupon, under this request id."""

    __slots__ = ("address", "coupon_exists", "coupon_id", "request_id", "requested_at_ms", "user_id")

    def __init__(self, coupon_id: int, user_id: int, request_id: str, requested_at_ms: int) -> None:
        self.coupon_id = coupon_id
        self.user_id = user_id
        self.request_id = request_id
        #: by the gate's clock; by this process's clock if the gate did not answer
        self.requested_at_ms = requested_at_ms
        #: the client's address, if requests are limited by address; otherwise empty
        self.address = ""
        #: False: the request is charged to the rate limits, and refused
        self.coupon_exists = True


class Admission(NamedTuple):
    """The verdict on a seat request."""

    verdict: Verdict
    #: the request id that has the seat; with NOT_OPEN the opening time in milliseconds since 1970 UTC; with
    #: RATE_LIMITED the exceeded limit's scope and the microseconds until it has room for a request
    detail: str


class Admissions(NamedTuple):
    """The gate's response to a batch of seat requests."""

    #: the verdicts other than ADMITTED, by the request's index in the batch
    others: Mapping[int, Admission]
    #: next offset to decide, by partition, as last published to the gate
    progress: Mapping[int, int]
    #: when they were judged, by the server's clock: milliseconds since 1970 UTC
    now_ms: int


class AsyncGate:
    """The gate's client for the API; every call raises Unavailable when Redis does not answer."""

    def __init__(
        self, redis: "Redis", limits: RateLimits = MappingProxyType({}), shift_ms: Callable[[], int] = lambda: 0
    ) -> None:
        """`shift_ms` returns the milliseconds by which a test shifts the server's clock for this process."""
        self._redis = redis
        self.limits = limits
        self._packed_limits = _pack(
            [part for scope, limit in limits.items() for part in (scope, limit.interval_us, limit.burst_us)]
        )
        self._shift_ms = shift_ms
        self._admit = redis.register_script(ADMIT)
        self._release = redis.register_script(RELEASE)
        self._check_writable = redis.register_script(CHECK_WRITABLE)

    async def admit(
        self,
        seats: Sequence[SeatRequest],
        acknowledged: Sequence[tuple[SeatRequest, int]] = (),
        *,
        backlog_full: bool = False,
    ) -> Admissions:
        """Take seats coupon by coupon, each in the order given; before that, record acknowledged requests with offsets.

        At most MAX_REQUESTS_PER_CALL of each. backlog_full: take no seat; a request that would get one is refused.
        """
        indexes: dict[int, list[int]] = {}
        for index, seat in enumerate(seats):
            indexes.setdefault(seat.coupon_id if seat.coupon_exists else NO_COUPON_ID, []).append(index)
        requests: list[str | list[str]] = []
        for coupon_id, of_coupon in indexes.items():
            users = [str(seats[index].user_id) for index in of_coupon]
            addresses = [seats[index].address for index in of_coupon] if LimitScope.ADDRESS in self.limits else []
            requests += (str(coupon_id), users, [seats[index].request_id for index in of_coupon], addresses)
        packed = _pack(_by_coupon(acknowledged)), _pack(requests), self._packed_limits
        with mapped_errors():
            reply: Any = await self._admit(args=[self._shift_ms(), *packed, int(backlog_full)])
        try:
            others, progress, now_ms = _unpack(reply)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unavailable("Redis", f"it has a seat that is not text: {error}") from error
        groups = list(indexes.values())
        return Admissions(
            {
                index: Admission(verdict, detail)
                for group, at, verdict, detail in others
                for index in (groups[group - 1] if at == 0 else (groups[group - 1][at - 1],))
            },
            _progress_of(progress),
            now_ms,
        )

    async def release(self, seat: SeatRequest) -> None:
        """Release the seat if it still is this request's and no repeat has been admitted since `requested_at_ms`."""
        with mapped_errors():
            await self._release(args=[seat.requested_at_ms, seat.coupon_id, seat.user_id, seat.request_id])

    async def read_offsets(self, requests: Sequence[tuple[int, int, str]]) -> list[int | None]:
        """Return the recorded offset of each request (coupon id, user id, request id), in one round trip.

        It is that of the first record that was acknowledged for the request. None: not recorded or lost, or the request
        does not have its user's seat, so that the offset is another one's.
        """
        users: dict[int, dict[int, None]] = {}
        for coupon_id, user_id, _ in requests:
            users.setdefault(coupon_id, {})[user_id] = None
        with mapped_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                for coupon_id, of_coupon in users.items():
                    fields = [str(user_id) for user_id in of_coupon]
                    pipe.hmget(seats_key(coupon_id), fields)
                    pipe.hmget(offsets_key(coupon_id), fields)
                replies: list[Any] = await pipe.execute(raise_on_error=False)
        found: dict[tuple[int, int, bytes], int | None] = {}
        for (coupon_id, of_coupon), seats, offsets in zip(users.items(), replies[::2], replies[1::2], strict=True):
            if isinstance(seats, list) and isinstance(offsets, list):
                for user_id, holder, offset in zip(of_coupon, seats, offsets, strict=True):
                    if holder is not None:
                        found[coupon_id, user_id, holder] = parse_number(offset)
        return [found.get((coupon_id, user_id, name.encode())) for coupon_id, user_id, name in requests]

    async def require_writable(self) -> None:
        """Raise Unavailable if Redis does not answer, refuses a write or may delete keys, NotPermitted without a right.

        A server whose memory is full refuses a write. INFO has a right of its own: without it a server that has lost
        its data is not noticed.
        """
        with mapped_errors():
            await self._check_writable(args=[WRITE_CHECK_KEY, WRITE_CHECK_SECONDS])
            info = await self._redis.info()
        if fault := eviction_fault(info):
            raise Unavailable("Redis", fault)


def _by_coupon(acknowledged: Sequence[tuple[SeatRequest, int]]) -> list[str | list[str]]:
    """Return the coupon, its users, their offsets and their request ids, for each coupon."""
    by_coupon: dict[int, tuple[list[str], list[str], list[str]]] = {}
    for seat, offset in acknowledged:
        users, offsets, request_ids = by_coupon.setdefault(seat.coupon_id, ([], [], []))
        users.append(str(seat.user_id))
        offsets.append(str(offset))
        request_ids.append(seat.request_id)
    return [part for coupon_id, columns in by_coupon.items() for part in (str(coupon_id), *columns)]


def _progress_of(packed: bytes) -> dict[int, int]:
    """Return the next offsets by partition; what is not a pair of numbers is left out, which costs only positions."""
    flat: list[int | None]
    try:
        flat = [*_unpack_numbers(packed)]
    except msgspec.ValidationError:
        flat = []
        for part in _unpack_parts(packed):
            try:
                flat.append(_unpack_number(part))
            except msgspec.ValidationError:
                flat.append(None)
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {partition: offset for partition, offset in pairs if partition is not None and offset is not None}
