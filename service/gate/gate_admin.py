"""The gate's blocking client for threads and workers: fills, releases, coupon values, progress, loss of state."""

import secrets
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

from redis import Redis

from service.domain.coupon import Coupon
from service.domain.errors import Misconfigured
from service.gate.client import eviction_fault, mapped_errors
from service.gate.keys import (
    COUPON_KEY,
    COUPON_KEY_PATTERN,
    DELETE_WRONG_TYPES,
    END_OF_TIME_MS,
    EVICT_ENDED,
    FILL,
    FILL_MARK,
    FOLLOW_UPS_KEY,
    LAST_SWEEP_KEY,
    MARK_UNKNOWN,
    MAX_FOLLOW_UPS,
    NOTE_ENDED,
    PROGRESS_KEY,
    QUEUED_TASK_PREFIX,
    RELEASE,
    RUN_ID_KEY,
    SHARED_KEY_TYPES,
    UNACKNOWLEDGED_KEY,
    UNKNOWN,
    UNKNOWN_SECONDS,
    UPDATE_COUPON,
    UPDATE_PROGRESS,
    coupon_fields,
    coupon_key,
    coupon_key_types,
    fill_lock_key,
    offsets_key,
    parse_number,
    seats_key,
)
from service.log import get_logger
from service.log_events import LogEvent

#: how long the temporary hash of a fill stays after its beginning, and after each batch of seats; no longer than an
#: ended coupon stays in the gate, or a newer version of a cold one
_FILL_SECONDS = 60
#: a filler that was killed blocks others no longer than this; two concurrent fills are safe
_FILL_LOCK_SECONDS = 5
_SEATS_BATCH_SIZE = 5_000
_ENCODING_ERRORS = "surrogateescape"
_log = get_logger(__name__)


class ServerState(NamedTuple):
    """Identifies the server's state; a later difference means that it may have lost writes."""

    #: the server chooses another at each start
    run_id: str
    #: the run id that the last sweep stored; empty before the first sweep, and after FLUSHALL until the next one
    swept_run_id: str


class BegunFill(NamedTuple):
    """What a fill must find unchanged at its end."""

    #: the server's
    run_id: str
    #: the temporary hash of seats, with FILL_MARK
    building: str


class Seat(NamedTuple):
    """A user's seat with a coupon."""

    user_id: int
    request_id: str
    #: None if the gate does not have it
    offset: int | None
    #: of a request without an acknowledgement: the last attempt to append it
    attempted_at_ms: int | None


class EndedCoupon(NamedTuple):
    """A coupon that has ended; times are milliseconds since 1970 UTC by the server's clock."""

    coupon_id: int
    version: str
    ended_at_ms: int
    now_ms: int
    #: it had already ended when the gate was filled for it
    filled_ended: bool


class GateAdmin:
    """Applies decisions, changes and fills to the gate; every call raises Unavailable when Redis does not answer."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._fill = redis.register_script(FILL)
        self._update_coupon = redis.register_script(UPDATE_COUPON)
        self._update_progress = redis.register_script(UPDATE_PROGRESS)
        self._release = redis.register_script(RELEASE)
        self._delete_wrong_types = redis.register_script(DELETE_WRONG_TYPES)
        self._note_ended = redis.register_script(NOTE_ENDED)
        self._evict_ended = redis.register_script(EVICT_ENDED)
        self._mark_unknown = redis.register_script(MARK_UNKNOWN)

    def is_cold(self, coupon_id: int) -> bool:
        """Return whether the gate has no capacity of the coupon, for example because it is marked as nonexistent."""
        with mapped_errors():
            return parse_number(self._redis.hget(coupon_key(coupon_id), "capacity")) is None

    @contextmanager
    def fill_lock(self, coupon_id: int) -> Iterator[bool]:
        """Lock the coupon for one filler at a time; yield whether this one has the lock."""
        key = fill_lock_key(coupon_id)
        with mapped_errors():
            acquired = bool(self._redis.set(key, 1, nx=True, ex=_FILL_LOCK_SECONDS))
        try:
            yield acquired
        finally:
            if acquired:
                with mapped_errors():
                    self._redis.delete(key)

    def server_state(self) -> ServerState:
        """Return what identifies the server's present state."""
        with mapped_errors():
            run_id = self._redis.info("server")["run_id"]
            swept_run_id = self._redis.get(RUN_ID_KEY)
        return ServerState(str(run_id), _text(swept_run_id or ""))

    def require_no_eviction(self) -> None:
        """Raise Misconfigured if the server deletes keys when its memory is full, NotPermitted if it does not say."""
        with mapped_errors():
            info: Any = self._redis.info("memory")
        if fault := eviction_fault(info):
            raise Misconfigured([f"REDIS_URL: the server cannot be the gate: {fault}"])

    def begin_fill(self, coupon_id: int) -> BegunFill:
        """Begin a fill before anything is read for it.

        The temporary hash of seats is marked from now on. If the hash expires or the server is emptied, the seats that
        are written afterwards are without the mark: what was read may be out of date by then.
        """
        run_id, building = self.server_state().run_id, f"{seats_key(coupon_id)}:{secrets.token_hex(8)}"
        with mapped_errors(), self._redis.pipeline() as pipe:
            pipe.hset(building, FILL_MARK, "")
            pipe.expire(building, _FILL_SECONDS)
            pipe.execute()
        return BegunFill(run_id, building)

    def fill(self, coupon: Coupon, seats: Iterable[tuple[int, str]], begun: BegunFill | None = None) -> bool:
        """Fill a cold gate with the coupon's values and seats (user id, request id); return whether this call did.

        begun: `begin_fill()` from before the coupon and the seats were read. If the server was restarted or emptied
        since, it may have lost a newer version of the coupon, and the gate stays cold. It also stays cold if the
        temporary hash has expired. None: begin now.

        A gate that another process has filled meanwhile is left unchanged. If the process is killed before the last
        line, the gate stays cold and the seats written so far expire.
        """
        run_id, building = begun or self.begin_fill(coupon.id)
        rows = iter(seats)
        with mapped_errors():
            while batch := dict(islice(rows, _SEATS_BATCH_SIZE)):
                self._redis.hset(building, mapping={str(user): request_id for user, request_id in batch.items()})
                self._redis.expire(building, _FILL_SECONDS)
                self._redis.expire(fill_lock_key(coupon.id), _FILL_LOCK_SECONDS)
            return bool(self._fill(args=[coupon.id, coupon.version, building, FILL_MARK, run_id, *_flat(coupon)]))

    def mark_unknown(self, coupon_id: int) -> None:
        """Mark a coupon as nonexistent, so that the gate refuses requests for a few seconds."""
        with mapped_errors():
            self._mark_unknown(args=[coupon_id, UNKNOWN, UNKNOWN_SECONDS])

    def release(self, seats: Sequence[tuple[int, int, str]], attempted_until_ms: int) -> int:
        """Release seats (coupon id, user id, request id), each only if it still is that request's; return how many.

        A request whose append was attempted again after `attempted_until_ms` keeps its seat.
        """
        parts = [part for coupon_id, user_id, request_id in seats for part in (coupon_id, user_id, _bytes(request_id))]
        with mapped_errors():
            return int(self._release(args=[attempted_until_ms, *parts]))

    def seat_holder(self, coupon_id: int, user_id: int) -> str | None:
        """Return the request id that has the user's seat."""
        with mapped_errors():
            request_id = self._redis.hget(seats_key(coupon_id), str(user_id))
        return None if request_id is None else _text(request_id)

    def update_coupons(self, coupons: Iterable[Coupon]) -> None:
        """Publish the coupons' values, and which are sold out; a coupon that the gate does not have stays cold."""
        with mapped_errors():
            for coupon in coupons:
                capacity = coupon.quantity + coupon.waitlist
                self._update_coupon(args=[coupon.id, coupon.version, capacity, coupon.quantity, *_flat(coupon)])

    def evict(self, coupon_id: int) -> None:
        """Make the gate cold for the coupon, so that the next fill reads the database and the log again."""
        with mapped_errors():
            self._redis.delete(coupon_key(coupon_id), seats_key(coupon_id), offsets_key(coupon_id))

    def note_ended(self, coupon_ids: Sequence[int], awaited: Collection[int]) -> list[EndedCoupon]:
        """Return which of the coupons have ended, and note when that was seen first; in one round trip.

        awaited: coupons with an unacknowledged request, which count as not ended.
        """
        with mapped_errors(), self._redis.pipeline(transaction=False) as pipe:
            for coupon_id in coupon_ids:
                self._note_ended(args=[coupon_id, int(coupon_id in awaited)], client=pipe)
            replies: list[Any] = pipe.execute()
        return [
            EndedCoupon(coupon_id, _text(version), int(ended_at), int(now), bool(filled_ended))
            for coupon_id, reply in zip(coupon_ids, replies, strict=True)
            if reply
            for version, ended_at, now, filled_ended in [reply]
        ]

    def evict_ended(self, ended: EndedCoupon) -> bool:
        """Make the gate cold for a coupon that has ended, unless it has changed since; return whether this call did."""
        with mapped_errors():
            return bool(self._evict_ended(args=[ended.coupon_id, ended.version, ended.ended_at_ms]))

    def coupon_ids(self) -> set[int]:
        """Return the ids of all coupons that the gate has keys of."""
        with mapped_errors():
            keys = self._redis.scan_iter(COUPON_KEY_PATTERN, count=_SEATS_BATCH_SIZE)
            found = (parse_number(match[1]) for key in keys if (match := COUPON_KEY.fullmatch(key)))
            return {coupon_id for coupon_id in found if coupon_id is not None}

    def iterate_seats(self, coupon_id: int) -> Iterator[list[Seat]]:
        """Yield the seats of a coupon in batches; one that changes meanwhile may be missing or appear twice.

        The coupon's keys of a wrong type are deleted first.
        """
        self.delete_wrong_types(coupon_key_types(coupon_id))
        with mapped_errors():
            pairs = self._redis.hscan_iter(seats_key(coupon_id), count=_SEATS_BATCH_SIZE)
            while batch := dict(islice(pairs, _SEATS_BATCH_SIZE)):
                offsets = self._redis.hmget(offsets_key(coupon_id), list(batch))
                attempts = self._redis.zmscore(UNACKNOWLEDGED_KEY, list(batch.values()))
                yield [
                    Seat(
                        user_id,
                        _text(request_id),
                        parse_number(offset),
                        None if attempted is None else _milliseconds(attempted),
                    )
                    for (user, request_id), offset, attempted in zip(batch.items(), offsets, attempts, strict=True)
                    if (user_id := parse_number(user)) is not None
                ]

    def evict_all(self) -> None:
        """Make the gate cold for every coupon and forget the partitions' progress: another log was adopted."""
        for coupon_id in self.coupon_ids():
            self.evict(coupon_id)
        self.forget_progress()

    def delete_wrong_types(self, key_types: Mapping[str, str] = SHARED_KEY_TYPES) -> None:
        """Delete the keys that have another type than this service gives them: something else wrote them.

        Default: the keys that all coupons share. What they held is lost, as with an emptied server.
        """
        with mapped_errors():
            deleted = self._delete_wrong_types(args=[part for key_type in key_types.items() for part in key_type])
        for key in deleted:
            _log.warning(LogEvent.GATE_KEY_DELETED, key=_text(key))

    def reset_if_state_lost(self) -> int:
        """Evict every coupon that was filled before the server was last started; return how many.

        A restarted server may lack the last second of writes: seats, values and releases that are not sent again.
        FLUSHALL also deletes the stored run id, but what was filled since carries the present run id and stays.
        If the process is killed between two lines, the next call evicts the remaining ones: the run id is stored last.
        """
        run_id, swept_run_id = self.server_state()
        if swept_run_id == run_id:
            return 0
        with mapped_errors():
            evicted = 0
            for coupon_id in self.coupon_ids():
                self.delete_wrong_types(coupon_key_types(coupon_id))
                if self._redis.hget(coupon_key(coupon_id), "run_id") != run_id.encode():
                    self.evict(coupon_id)
                    evicted += 1
            self._redis.set(RUN_ID_KEY, run_id)
        if evicted:
            _log.warning(LogEvent.GATE_RESET, coupons=evicted)
        return evicted

    def publish_progress(self, next_offsets: Mapping[int, int]) -> None:
        """Publish the next offset to decide, by partition."""
        if not next_offsets:
            return
        with mapped_errors():
            self._update_progress(args=[number for pair in next_offsets.items() for number in pair])

    def forget_progress(self) -> None:
        """Delete the partitions' progress, which the next batch of each partition publishes again."""
        with mapped_errors():
            self._redis.delete(PROGRESS_KEY)

    def unacknowledged(self, attempted_before_ms: int, limit: int) -> dict[str, int]:
        """Return request ids without an acknowledgement, with the time of their last append attempt, oldest first."""
        with mapped_errors():
            found: list[Any] = self._redis.zrangebyscore(
                UNACKNOWLEDGED_KEY, "-inf", attempted_before_ms, start=0, num=limit, withscores=True
            )
        return {_text(request_id): _milliseconds(score) for request_id, score in found}

    def iterate_unacknowledged(self) -> Iterator[str]:
        """Yield every request id without an acknowledgement; one that changes meanwhile may be missing or twice."""
        with mapped_errors():
            for request_id, _ in self._redis.zscan_iter(UNACKNOWLEDGED_KEY, count=_SEATS_BATCH_SIZE):
                yield _text(request_id)

    def resolve_unacknowledged(self, request_ids: Sequence[str]) -> None:
        """Remove requests from the unacknowledged ones; their seats stay."""
        if request_ids:
            with mapped_errors():
                self._redis.zrem(UNACKNOWLEDGED_KEY, *map(_bytes, request_ids))

    def push_follow_up(self, payload: bytes) -> None:
        """Append a follow-up for an issuer; above MAX_FOLLOW_UPS the oldest is dropped."""
        with mapped_errors(), self._redis.pipeline() as pipe:
            pipe.rpush(FOLLOW_UPS_KEY, payload)
            pipe.ltrim(FOLLOW_UPS_KEY, -MAX_FOLLOW_UPS, -1)
            pipe.execute()

    def pop_follow_up(self, wait_seconds: float) -> bytes | None:
        """Take the oldest follow-up, or return None if none arrives within wait_seconds."""
        with mapped_errors():
            popped: Any = self._redis.blpop([FOLLOW_UPS_KEY], timeout=wait_seconds)
        return popped[1] if popped else None

    def mark_queued(self, task: str, seconds: int) -> bool:
        """Mark a task as queued or running, for at most so long; return whether it was not marked before."""
        with mapped_errors():
            return bool(self._redis.set(QUEUED_TASK_PREFIX + task, 1, nx=True, ex=seconds))

    def unmark_queued(self, task: str) -> None:
        """Note that the task is neither queued nor running any more."""
        with mapped_errors():
            self._redis.delete(QUEUED_TASK_PREFIX + task)

    def record_sweep(self) -> None:
        """Record that the sweep ran, for health checks."""
        with mapped_errors():
            self._redis.set(LAST_SWEEP_KEY, int(time.time()), ex=60)

    def seconds_since_sweep(self) -> float | None:
        """Return the seconds since the sweep ran, or None when that is longer than a minute."""
        with mapped_errors():
            swept_at = parse_number(self._redis.get(LAST_SWEEP_KEY))
        return None if swept_at is None else time.time() - swept_at


def _flat(coupon: Coupon) -> list[str]:
    return [part for field in coupon_fields(coupon).items() for part in field]


def _text(value: bytes | str) -> str:
    """Return what was stored as text; what is not UTF-8, which this service never writes, stays distinguishable."""
    return value.decode(errors=_ENCODING_ERRORS) if isinstance(value, bytes) else value


def _bytes(text: str) -> bytes:
    """Return what `_text` was made from."""
    return text.encode(errors=_ENCODING_ERRORS)


def _milliseconds(score: float) -> int:
    """Return the score of an unacknowledged request; ±inf, which no script writes, becomes a time as well."""
    return int(min(max(score, 0), END_OF_TIME_MS))
