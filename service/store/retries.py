"""Queries on held and standby requests. A row is authoritative; a Celery message only triggers the attempt."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from service.domain.failures import Failure
from service.domain.record import RawRecord
from service.domain.request import LogPosition, Request
from service.store.arrays import AT_LOG_POSITION, LOG_POSITION_ARRAYS, log_position_arrays
from service.store.raw_records import RAW_ARRAYS, RAW_COLUMNS, raw_arrays, raw_of_row, record_bytes, split_by_bytes
from service.store.requests import request_of


class WaitingRequest(NamedTuple):
    """A request to be attempted: its raw record, the attempts made and the first error."""

    raw: RawRecord
    request: Request
    #: attempts since it was read or replayed, as the retry policy counts; 0 on standby
    attempts: int
    #: attempts ever made
    total_attempts: int
    first_error: str | None


class OverdueRetries(NamedTuple):
    """Held requests whose message was lost; all have the same log and the same number of attempts."""

    log_id: int
    attempts: int
    log_positions: list[LogPosition]


_INSERT = text(
    f"INSERT INTO retries (log_id, {RAW_COLUMNS}, attempts, next_attempt_at, first_error, error_type, error_message)"
    f" SELECT :log, {RAW_COLUMNS}, 1, :at, first, kind, message"
    f" FROM unnest({RAW_ARRAYS}, CAST(:firsts AS text[]), CAST(:kinds AS text[]), CAST(:messages AS text[]))"
    f" AS failed({RAW_COLUMNS}, first, kind, message)"
)


def insert(tx: Connection, log_id: int, failed: Sequence[tuple[RawRecord, Failure]], next_attempt_at: datetime) -> None:
    """Store requests after their first failed attempt."""
    for some in split_by_bytes(failed, lambda one: record_bytes(one[0])):
        errors = _errors([failure for _, failure in some])
        raws = raw_arrays([raw for raw, _ in some])
        tx.execute(_INSERT, {"log": log_id, "at": next_attempt_at, **raws, **errors})


_INSERT_STANDBY = text(
    f"INSERT INTO retries (log_id, {RAW_COLUMNS}, attempts)"
    f" SELECT :log, {RAW_COLUMNS}, 0 FROM unnest({RAW_ARRAYS}) AS waiting({RAW_COLUMNS})"
)


def insert_standby(tx: Connection, log_id: int, waiting: Sequence[RawRecord]) -> None:
    """Store requests that are attempted when a seat is free."""
    for some in split_by_bytes(waiting, record_bytes):
        tx.execute(_INSERT_STANDBY, {"log": log_id, **raw_arrays(some)})


_WAITING = (
    "SELECT retries.*, requests.coupon_id, requests.user_id, requests.request_id, requests.requested_at,"
    " requests.attempts AS ever FROM retries JOIN"
)
_BY_POSITION = 'USING (log_id, partition, "offset")'
_TAKE = text(
    f"{_WAITING} requests {_BY_POSITION} JOIN unnest({LOG_POSITION_ARRAYS}) AS asked(l, p, o) ON {AT_LOG_POSITION}"
    ' WHERE retries.attempts = :attempts ORDER BY partition, "offset" FOR UPDATE OF retries SKIP LOCKED'
)


def lock_for_attempt(
    tx: Connection, log_id: int, log_positions: Sequence[LogPosition], attempts: int
) -> list[WaitingRequest]:
    """Lock those requests that have had exactly `attempts` attempts and that no other transaction has locked."""
    rows = tx.execute(_TAKE, {"attempts": attempts, **log_position_arrays(log_id, log_positions)})
    return [_waiting(row) for row in rows]


_STANDBY = "FROM requests WHERE coupon_id = :coupon AND state = 'standby'"
_IN_ORDER = 'ORDER BY log_id, partition, "offset"'
_FIRST_LOG = text(f"SELECT log_id {_STANDBY} {_IN_ORDER} LIMIT 1")
#: Select the requests before the join. Otherwise the planner may join all standby requests.
_FIRST = text(
    f"{_WAITING} (SELECT * {_STANDBY} AND log_id = :log {_IN_ORDER} LIMIT :limit) AS requests"
    f" {_BY_POSITION} {_IN_ORDER}"
)


def first_standby(tx: Connection, coupon_id: int, limit: int) -> tuple[int, list[WaitingRequest]]:
    """Return the log id and the first standby requests of the locked coupon, at most `limit`, all of one log."""
    log = tx.execute(_FIRST_LOG, {"coupon": coupon_id}).scalar_one()
    rows = tx.execute(_FIRST, {"log": log, "coupon": coupon_id, "limit": limit})
    return log, [_waiting(row) for row in rows]


def _waiting(row: Any) -> WaitingRequest:
    request = request_of(row.partition, row.offset, row.coupon_id, row.user_id, row.request_id, row.requested_at)
    return WaitingRequest(raw_of_row(row), request, row.attempts, row.ever, row.first_error)


_POSTPONE = text(
    "UPDATE retries SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => delay),"
    " first_error = coalesce(first_error, first), error_type = kind, error_message = message"
    f" FROM unnest({LOG_POSITION_ARRAYS}, CAST(:delays AS float[]),"
    "  CAST(:firsts AS text[]), CAST(:kinds AS text[]), CAST(:messages AS text[]))"
    f"  AS failed(l, p, o, delay, first, kind, message) WHERE {AT_LOG_POSITION}"
)


def postpone(tx: Connection, log_id: int, failed: Sequence[tuple[LogPosition, Failure, float]]) -> None:
    """Record one more failed attempt of each request and when its next one is due (log position, failure, seconds)."""
    if not failed:
        return
    tx.execute(
        _POSTPONE,
        {
            "delays": [delay_seconds for _, _, delay_seconds in failed],
            **_errors([failure for _, failure, _ in failed]),
            **log_position_arrays(log_id, [log_position for log_position, _, _ in failed]),
        },
    )


_REMOVE = text(f"DELETE FROM retries USING unnest({LOG_POSITION_ARRAYS}) AS decided(l, p, o) WHERE {AT_LOG_POSITION}")


def remove(tx: Connection, log_id: int, log_positions: Sequence[LogPosition]) -> None:
    """Delete the rows of requests that have been decided."""
    if log_positions:
        tx.execute(_REMOVE, log_position_arrays(log_id, log_positions))


def claim_overdue(tx: Connection, grace_seconds: float, again_seconds: float, limit: int) -> list[OverdueRetries]:
    """Return held requests overdue by more than `grace_seconds`; they are not returned again for `again_seconds`."""
    rows = tx.execute(
        text(
            "UPDATE retries SET next_attempt_at = now() + make_interval(secs => :again)"
            ' WHERE (log_id, partition, "offset") IN (SELECT log_id, partition, "offset" FROM retries'
            "  WHERE next_attempt_at < now() - make_interval(secs => :grace)"
            "  ORDER BY next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED)"
            ' RETURNING log_id, partition, "offset" AS at, attempts'
        ),
        {"grace": grace_seconds, "again": again_seconds, "limit": limit},
    ).all()
    together: dict[tuple[int, int], list[LogPosition]] = {}
    for row in rows:
        together.setdefault((row.log_id, row.attempts), []).append(LogPosition(row.partition, row.at))
    return [OverdueRetries(log, attempts, sorted(at)) for (log, attempts), at in together.items()]


def _errors(failures: Sequence[Failure]) -> dict[str, list[str]]:
    return {
        "firsts": [str(failure) for failure in failures],
        "kinds": [failure.error_type for failure in failures],
        "messages": [failure.message for failure in failures],
    }
