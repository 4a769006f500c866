"""Queries on dead letters between database and topic. One that is not forwarded yet is work for Celery."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from service.domain.failures import Failure
from service.domain.record import RawRecord
from service.domain.request import LogPosition, ReasonCode, Request
from service.store.raw_records import (
    BYTES_COLUMNS,
    POSITION_COLUMNS,
    RAW_ARRAYS,
    raw_arrays,
    raw_of_row,
    record_bytes,
    split_by_bytes,
)
from service.store.tables import UNVERIFIED_ROWS
from service.timestamps import to_datetime


class NewDeadLetter(NamedTuple):
    """A record to be stored as a dead letter, and the reason."""

    raw: RawRecord
    request: Request | None
    code: ReasonCode
    attempts: int
    first_error: str
    failure: Failure


class ClaimedDeadLetter(NamedTuple):
    """A dead letter leased for forwarding to its topic."""

    id: int
    raw: RawRecord
    error_type: str
    message: str
    #: distinguishes this dead letter from a later one of the same request
    dead_at: datetime


_VALUES = f"{BYTES_COLUMNS}, coupon_id, user_id, request_id, code, attempts, first_error, error_type, error_message"
_COLUMNS = f"{POSITION_COLUMNS}, {_VALUES}"
_NEW = (
    f"unnest({RAW_ARRAYS}, CAST(:coupons AS bigint[]), CAST(:users AS bigint[]), CAST(:ids AS text[]),"
    f" CAST(:codes AS text[]), CAST(:attempts AS int[]), CAST(:firsts AS text[]), CAST(:kinds AS text[]),"
    f" CAST(:messages AS text[])) AS new({_COLUMNS})"
)
INSERT = text(
    f"INSERT INTO dead_letters (log_id, {_COLUMNS}) SELECT :log, {_COLUMNS} FROM {_NEW}"
    ' ON CONFLICT (log_id, partition, "offset") DO UPDATE SET code = excluded.code, attempts = excluded.attempts,'
    " error_type = excluded.error_type, error_message = excluded.error_message, state = 'new', dead_at = now(),"
    " lease_until = NULL, forwarded_at = NULL, dlt_partition = NULL, dlt_offset = NULL"
)


def insert(tx: Connection, log_id: int, dead_letters: Sequence[NewDeadLetter]) -> None:
    """Store dead letters of this log; one that is dead again after a replay becomes new and is forwarded again."""
    for values in insert_values(log_id, dead_letters):
        tx.execute(INSERT, values)


def insert_values(log_id: int, dead_letters: Sequence[NewDeadLetter]) -> Iterator[dict[str, Any]]:
    """Yield the values of INSERT, for each statement that the dead letters need."""
    for some in split_by_bytes(dead_letters, lambda one: record_bytes(one.raw)):
        yield {"log": log_id, **_arrays(some)}


_INSERT_FOREIGN = text(
    f"INSERT INTO dead_letters (dlt_partition, dlt_offset, {_VALUES}, forwarded_at)"
    f" SELECT {_COLUMNS}, now() FROM {_NEW} ON CONFLICT DO NOTHING"
)


def insert_foreign(tx: Connection, dead_letters: Sequence[NewDeadLetter]) -> None:
    """Store dead letters that another producer wrote to the topic, unless they are stored already."""
    for some in split_by_bytes(dead_letters, lambda one: record_bytes(one.raw)):
        tx.execute(_INSERT_FOREIGN, _arrays(some))


class ReceivedDeadLetter(NamedTuple):
    """A record of the dead-letter topic: the log position it names as its origin, and its own."""

    origin_position: LogPosition
    #: append time of the original record; identifies the log, since offsets repeat in a topic that was created again
    appended_at_ms: int
    dlt_position: LogPosition


_CONFIRM = text(
    "WITH seen AS (SELECT * FROM unnest(CAST(:partitions AS int[]), CAST(:offsets AS bigint[]),"
    "  CAST(:appended AS timestamptz[]), CAST(:dlt_partitions AS int[]), CAST(:dlt_offsets AS bigint[]))"
    "  WITH ORDINALITY AS seen(p, o, at, dlt_p, dlt_o, number)),"
    " ours AS (SELECT id, seen.* FROM seen JOIN dead_letters ON log_id IN (SELECT logs.id FROM logs)"
    '  AND partition = p AND "offset" = o AND appended_at = at ORDER BY id, number FOR NO KEY UPDATE OF dead_letters),'
    " noted AS (UPDATE dead_letters SET dlt_partition = dlt_p, dlt_offset = dlt_o"
    "  FROM (SELECT DISTINCT ON (id) * FROM ours ORDER BY id, number) AS first"
    "  WHERE dead_letters.id = first.id AND dlt_offset IS NULL)"
    " SELECT number FROM ours"
)


def confirm(tx: Connection, received: Sequence[ReceivedDeadLetter]) -> set[ReceivedDeadLetter]:
    """Record where in the topic dead letters of this service were first read; return those that are of this service.

    Only the forwarder marks them as forwarded: a late copy may be from before a replay.
    """
    numbers = tx.execute(
        _CONFIRM,
        {
            "partitions": [one.origin_position.partition for one in received],
            "offsets": [one.origin_position.offset for one in received],
            "appended": [to_datetime(one.appended_at_ms) for one in received],
            "dlt_partitions": [one.dlt_position.partition for one in received],
            "dlt_offsets": [one.dlt_position.offset for one in received],
        },
    ).scalars()
    return {received[number - 1] for number in numbers}


def claim(tx: Connection, lease_seconds: float, limit: int) -> list[ClaimedDeadLetter]:
    """Lease up to `limit` dead letters that are not forwarded yet."""
    rows = tx.execute(
        text(
            "UPDATE dead_letters SET lease_until = now() + make_interval(secs => :lease) WHERE id IN ("
            " SELECT id FROM dead_letters WHERE forwarded_at IS NULL AND (lease_until IS NULL OR lease_until < now())"
            " ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING *"
        ),
        {"lease": lease_seconds, "limit": limit},
    )
    return sorted(
        ClaimedDeadLetter(row.id, raw_of_row(row), row.error_type, row.error_message, row.dead_at) for row in rows
    )


def mark_forwarded(tx: Connection, acknowledged: Sequence[ClaimedDeadLetter]) -> None:
    """Mark those that the broker acknowledged; one that became dead again since then is still to be forwarded."""
    tx.execute(
        text(
            "WITH taken AS (SELECT id FROM dead_letters"
            "  JOIN unnest(CAST(:ids AS bigint[]), CAST(:dead_at AS timestamptz[])) AS taken(dead_letter_id, at)"
            "  ON id = dead_letter_id AND dead_at = at ORDER BY id FOR NO KEY UPDATE OF dead_letters)"
            " UPDATE dead_letters SET forwarded_at = now() FROM taken WHERE dead_letters.id = taken.id"
        ),
        {
            "ids": [dead_letter.id for dead_letter in acknowledged],
            "dead_at": [dead_letter.dead_at for dead_letter in acknowledged],
        },
    )


def has_overdue(tx: Connection, grace_seconds: float) -> bool:
    """Return whether a dead letter has waited longer than the grace period: the message to forward it was lost."""
    query = (
        "SELECT EXISTS (SELECT FROM dead_letters WHERE forwarded_at IS NULL"
        " AND dead_at < now() - make_interval(secs => :grace) AND (lease_until IS NULL OR lease_until < now()))"
    )
    return bool(tx.execute(text(query), {"grace": grace_seconds}).scalar_one())


def count_recent(tx: Connection, seconds: float) -> int:
    """Return how many dead letters were written in the last `seconds`."""
    query = "SELECT count(*) FROM dead_letters WHERE dead_at > now() - make_interval(secs => :seconds)"
    return int(tx.execute(text(query), {"seconds": seconds}).scalar_one())


_COUNT_UNVERIFIED = text(
    f"SELECT count(*) FROM (SELECT FROM dead_letters WHERE {UNVERIFIED_ROWS} LIMIT :limit) AS unverified"
)


def count_unverified(tx: Connection, limit: int) -> int:
    """Return how many new dead letters have a request id that no key verified, at most `limit`."""
    return int(tx.execute(_COUNT_UNVERIFIED, {"limit": limit}).scalar_one())


def _arrays(dead_letters: Sequence[NewDeadLetter]) -> dict[str, list[Any]]:
    requests = [dead_letter.request for dead_letter in dead_letters]
    return {
        **raw_arrays([dead_letter.raw for dead_letter in dead_letters]),
        "coupons": [request and request.coupon_id for request in requests],
        "users": [request and request.user_id for request in requests],
        "ids": [request and request.request_id for request in requests],
        "codes": [dead_letter.code.value for dead_letter in dead_letters],
        "attempts": [dead_letter.attempts for dead_letter in dead_letters],
        "firsts": [dead_letter.first_error for dead_letter in dead_letters],
        "kinds": [dead_letter.failure.error_type for dead_letter in dead_letters],
        "messages": [dead_letter.failure.message for dead_letter in dead_letters],
    }
