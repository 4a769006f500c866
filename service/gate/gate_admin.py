"""Keeps the gate true, from threads and workers: filling, seats given back, coupons gone, progress."""

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from redis import Redis

from service.domain.coupon import Coupon
from service.gate.errors import mapped_errors
from service.gate.keys import (
    COUPON_KEY_PATTERN,
    FILL,
    LAST_SWEEP_KEY,
    MARK_UNKNOWN,
    RELEASE,
    RUN_ID_KEY,
    UNACKNOWLEDGED_KEY,
    UNKNOWN,
    UNKNOWN_SECONDS,
    UPDATE_COUPON,
    UPDATE_PROGRESS,
    coupon_fields,
    coupon_key,
    offsets_key,
    seats_key,
)

_FILL_SECONDS = 30
#: a filler that was killed is in nobody's way for longer; two at once do no harm
_FILLER_SECONDS = 5
_AT_ONCE = 5_000
_COLD = (None, UNKNOWN.encode())


class GateAdmin:
    """What others tell the gate; every call raises Unavailable when Redis does not answer."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._open = redis.register_script(FILL)
        self._tell = redis.register_script(UPDATE_COUPON)
        self._progress = redis.register_script(UPDATE_PROGRESS)
        self._release = redis.register_script(RELEASE)
        self._unknown = redis.register_script(MARK_UNKNOWN)

    def is_cold(self, coupon_id: int) -> bool:
        """Whether the gate has nothing of the coupon, or believes that it does not exist."""
        with mapped_errors():
            return self._redis.hget(coupon_key(coupon_id), "capacity") in _COLD

    @contextmanager
    def fill_lock(self, coupon_id: int) -> Iterator[bool]:
        """Lets one filler in at a time; the others are told False."""
        name = _filler(coupon_id)
        with mapped_errors():
            mine = bool(self._redis.set(name, 1, nx=True, ex=_FILLER_SECONDS))
        try:
            yield mine
        finally:
            if mine:
                with mapped_errors():
                    self._redis.delete(name)

    def fill(self, coupon: Coupon, seats: Iterable[tuple[int, str]]) -> None:
        """Makes the gate know the coupon and who has a seat; nobody is admitted before all of it is there.

        A gate that someone else has filled meanwhile is left as it is, and one whose seats got lost stays cold.
        """
        building = f"{seats_key(coupon.id)}:{secrets.token_hex(8)}"
        rows = iter(seats)
        with mapped_errors():
            filled = False
            while some := dict(islice(rows, _AT_ONCE)):
                self._redis.hset(building, mapping={str(user): request_id for user, request_id in some.items()})
                self._redis.expire(building, _FILL_SECONDS)
                self._redis.expire(_filler(coupon.id), _FILLER_SECONDS)
                filled = True
            self._open(args=[coupon.id, coupon.version, building if filled else "", *_flat(coupon)])

    def mark_unknown(self, coupon_id: int) -> None:
        """Lets the gate refuse a coupon that does not exist by itself, for a few seconds."""
        with mapped_errors():
            self._unknown(args=[coupon_id, UNKNOWN, UNKNOWN_SECONDS])

    def release(self, seats: Sequence[tuple[int, int, str]], tried_until_ms: int) -> int:
        """Gives seats (coupon_id, user_id, request_id) back, each only if it still is that request's.

        A request whose append was tried again after `tried_until_ms` keeps its seat. The number given back.
        """
        with mapped_errors():
            return int(self._release(args=[tried_until_ms, *(part for seat in seats for part in seat)]))

    def seat_holder(self, coupon_id: int, user_id: int) -> str | None:
        """The request id that has the user's seat."""
        with mapped_errors():
            request_id = self._redis.hget(seats_key(coupon_id), str(user_id))
        return None if request_id is None else _text(request_id)

    def update_coupons(self, coupons: Iterable[Coupon]) -> None:
        """Tells values that an operator changed, and which coupons are gone; one the gate does not know stays so."""
        with mapped_errors():
            for coupon in coupons:
                room = (coupon.quantity + coupon.waitlist, coupon.quantity)
                self._tell(args=[coupon.id, coupon.version, *room, *_flat(coupon)])

    def evict(self, coupon_id: int) -> None:
        """Makes the gate cold for the coupon, so that the next filling reads the database and the log again."""
        with mapped_errors():
            self._redis.delete(coupon_key(coupon_id), seats_key(coupon_id), offsets_key(coupon_id))

    def reset_if_state_lost(self) -> bool:
        """Makes the gate cold for every coupon if the server was started anew, and tells whether it was.

        Its file may lack the last second before it died: seats, changes and seats given back that nobody tells again.
        """
        with mapped_errors():
            life = str(self._redis.info("server")["run_id"])
            if self._redis.get(RUN_ID_KEY) == life.encode():
                return False
            for coupon_id in {
                int(key.split(b":")[1]) for key in self._redis.scan_iter(COUPON_KEY_PATTERN, count=_AT_ONCE)
            }:
                self.evict(coupon_id)
            self._redis.set(RUN_ID_KEY, life)
        return True

    def publish_progress(self, positions: Mapping[int, int]) -> None:
        """Tells the next offset to decide, by partition."""
        if not positions:
            return
        with mapped_errors():
            self._progress(args=[number for position in positions.items() for number in position])

    def unacknowledged(self, tried_before_ms: int, limit: int) -> dict[str, int]:
        """Request ids of which the broker has not been heard, with the moment of their last try, oldest first."""
        with mapped_errors():
            found: list[Any] = self._redis.zrangebyscore(
                UNACKNOWLEDGED_KEY, "-inf", tried_before_ms, start=0, num=limit, withscores=True
            )
        return {_text(request_id): int(score) for request_id, score in found}

    def resolve_unacknowledged(self, request_ids: Sequence[str]) -> None:
        """Forgets that these were unsettled; their seats stay."""
        if request_ids:
            with mapped_errors():
                self._redis.zrem(UNACKNOWLEDGED_KEY, *request_ids)

    def record_sweep(self) -> None:
        """Notes that the sweep ran, for health checks."""
        with mapped_errors():
            self._redis.set(LAST_SWEEP_KEY, int(time.time()), ex=60)

    def seconds_since_sweep(self) -> float | None:
        """Seconds since the sweep ran, or None when that is longer than a minute."""
        with mapped_errors():
            at = self._redis.get(LAST_SWEEP_KEY)
        return None if at is None else time.time() - int(at)


def _filler(coupon_id: int) -> str:
    """The key that says that somebody is filling the gate."""
    return f"{coupon_key(coupon_id)}:filling"


def _flat(coupon: Coupon) -> list[str]:
    return [part for field in coupon_fields(coupon).items() for part in field]


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
