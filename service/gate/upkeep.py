"""Keeps the gate true, from threads and workers: filling, seats given back, coupons gone, progress."""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from redis import Redis

from service.domain.coupon import Coupon
from service.gate.answering import answering
from service.gate.names import (
    COUPON_KEYS,
    LIFE,
    NOTE_UNKNOWN,
    OPEN,
    RELEASE,
    SWEPT_AT,
    TELL_COUPON,
    TELL_PROGRESS,
    UNKNOWN,
    UNKNOWN_SECONDS,
    UNSETTLED,
    coupon_key,
    fields,
    offsets_key,
    seats_key,
)

_FILL_SECONDS = 30
#: a filler that was killed is in nobody's way for longer; two at once do no harm
_FILLER_SECONDS = 5
_AT_ONCE = 5_000
_COLD = (None, UNKNOWN.encode())


class Upkeep:
    """What others tell the gate; every call raises Unavailable when Redis does not answer."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._open = redis.register_script(OPEN)
        self._tell = redis.register_script(TELL_COUPON)
        self._progress = redis.register_script(TELL_PROGRESS)
        self._release = redis.register_script(RELEASE)
        self._unknown = redis.register_script(NOTE_UNKNOWN)

    def is_cold(self, coupon_id: int) -> bool:
        """Whether the gate has nothing of the coupon, or believes that it does not exist."""
        with answering():
            return self._redis.hget(coupon_key(coupon_id), "capacity") in _COLD

    @contextmanager
    def filling(self, coupon_id: int) -> Iterator[bool]:
        """Lets one filler in at a time; the others are told False."""
        name = _filler(coupon_id)
        with answering():
            mine = bool(self._redis.set(name, 1, nx=True, ex=_FILLER_SECONDS))
        try:
            yield mine
        finally:
            if mine:
                with answering():
                    self._redis.delete(name)

    def fill(self, coupon: Coupon, seats: Iterable[tuple[int, str]]) -> None:
        """Makes the gate know the coupon and who has a seat; nobody is admitted before all of it is there.

        A gate that someone else has filled meanwhile is left as it is, and one whose seats got lost stays cold.
        """
        building = f"{seats_key(coupon.id)}:{secrets.token_hex(8)}"
        rows = iter(seats)
        with answering():
            filled = False
            while some := dict(islice(rows, _AT_ONCE)):
                self._redis.hset(building, mapping={str(user): request_id for user, request_id in some.items()})
                self._redis.expire(building, _FILL_SECONDS)
                self._redis.expire(_filler(coupon.id), _FILLER_SECONDS)
                filled = True
            self._open(args=[coupon.id, coupon.version, building if filled else "", *_flat(coupon)])

    def unknown(self, coupon_id: int) -> None:
        """Lets the gate refuse a coupon that does not exist by itself, for a few seconds."""
        with answering():
            self._unknown(args=[coupon_id, UNKNOWN, UNKNOWN_SECONDS])

    def release(self, seats: Sequence[tuple[int, int, str]], tried_until_ms: int) -> int:
        """Gives seats (coupon_id, user_id, request_id) back, each only if it still is that request's.

        A request whose append was tried again after `tried_until_ms` keeps its seat. The number given back.
        """
        with answering():
            return int(self._release(args=[tried_until_ms, *(part for seat in seats for part in seat)]))

    def seat(self, coupon_id: int, user_id: int) -> str | None:
        """The request id that has the user's seat."""
        with answering():
            request_id = self._redis.hget(seats_key(coupon_id), str(user_id))
        return None if request_id is None else _text(request_id)

    def tell(self, coupons: Iterable[Coupon]) -> None:
        """Tells values that an operator changed, and which coupons are gone; one the gate does not know stays so."""
        with answering():
            for coupon in coupons:
                room = (coupon.quantity + coupon.waitlist, coupon.quantity)
                self._tell(args=[coupon.id, coupon.version, *room, *_flat(coupon)])

    def forget(self, coupon_id: int) -> None:
        """Makes the gate cold for the coupon, so that the next filling reads the database and the log again."""
        with answering():
            self._redis.delete(coupon_key(coupon_id), seats_key(coupon_id), offsets_key(coupon_id))

    def forget_if_restarted(self) -> bool:
        """Makes the gate cold for every coupon if the server was started anew, and tells whether it was.

        Its file may lack the last second before it died: seats, changes and seats given back that nobody tells again.
        """
        with answering():
            life = str(self._redis.info("server")["run_id"])
            if self._redis.get(LIFE) == life.encode():
                return False
            for coupon_id in {int(key.split(b":")[1]) for key in self._redis.scan_iter(COUPON_KEYS, count=_AT_ONCE)}:
                self.forget(coupon_id)
            self._redis.set(LIFE, life)
        return True

    def progress(self, positions: Mapping[int, int]) -> None:
        """Tells the next offset to decide, by partition."""
        if not positions:
            return
        with answering():
            self._progress(args=[number for position in positions.items() for number in position])

    def unsettled(self, tried_before_ms: int, limit: int) -> dict[str, int]:
        """Request ids of which the broker has not been heard, with the moment of their last try, oldest first."""
        with answering():
            found: list[Any] = self._redis.zrangebyscore(
                UNSETTLED, "-inf", tried_before_ms, start=0, num=limit, withscores=True
            )
        return {_text(request_id): int(score) for request_id, score in found}

    def settle(self, request_ids: Sequence[str]) -> None:
        """Forgets that these were unsettled; their seats stay."""
        if request_ids:
            with answering():
                self._redis.zrem(UNSETTLED, *request_ids)

    def swept(self) -> None:
        """Notes that the sweep ran, for health checks."""
        with answering():
            self._redis.set(SWEPT_AT, int(time.time()), ex=60)

    def seconds_since_sweep(self) -> float | None:
        """Seconds since the sweep ran, or None when that is longer than a minute."""
        with answering():
            at = self._redis.get(SWEPT_AT)
        return None if at is None else time.time() - int(at)


def _filler(coupon_id: int) -> str:
    """The key that says that somebody is filling the gate."""
    return f"{coupon_key(coupon_id)}:filling"


def _flat(coupon: Coupon) -> list[str]:
    return [part for field in fields(coupon).items() for part in field]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
