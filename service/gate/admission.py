"""Step 2, from asyncio: one Lua call admits many requests, one pipeline notes many offsets."""

from collections.abc import Sequence
from typing import NamedTuple

from redis.asyncio import Redis

from service.gate.answering import answering
from service.gate.gather import Gatherer
from service.gate.names import ADMIT, PROGRESS, RELEASE, UNSETTLED, Verdict, offsets_key


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
        self._admissions: Gatherer[Seat, Judged] = Gatherer("Redis", self._admit_many)
        self._notes: Gatherer[tuple[Seat, int], None] = Gatherer("Redis", self._note_many)

    async def admit(self, seat: Seat) -> Judged:
        """Takes the seat, or says why not."""
        return await self._admissions.ask(seat)

    async def note(self, seat: Seat, offset: int) -> None:
        """Notes that the broker has acknowledged the request, and where it lies."""
        await self._notes.ask((seat, offset))

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
        arguments: list[str | int] = [seats[0].now_ms]
        for seat in seats:
            arguments += (seat.coupon_id, seat.user_id, seat.request_id)
        with answering():
            verdicts, progress = await self._admit(args=arguments)
        told = {int(partition): int(at) for partition, at in zip(progress[::2], progress[1::2], strict=True)}
        pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
        return [Judged(Verdict(verdict.decode()), detail.decode(), told) for verdict, detail in pairs]

    async def _note_many(self, notes: Sequence[tuple[Seat, int]]) -> list[None]:
        with answering():
            async with self._redis.pipeline(transaction=False) as pipe:
                for seat, offset in notes:
                    pipe.hsetnx(offsets_key(seat.coupon_id), str(seat.user_id), str(offset))  # the first one counts
                pipe.zrem(UNSETTLED, *(seat.request_id for seat, _ in notes))
                await pipe.execute()
        return [None] * len(notes)


def _number(text: bytes | None) -> int | None:
    return None if text is None else int(text)
