"""Queries on dead letters on their way to the topic and back; one not yet forwarded is work for Celery."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from service.domain.failures import Failure
from service.domain.record import RawRecord
from service.domain.request import LogPosition, ReasonCode, Request
from service.store.engine import to_datetime
from service.store.raw_records import BYTES_COLUMNS, PLACE_COLUMNS, RAW_ARRAYS, raw_arrays, raw_of_row, split_by_bytes


class NewDeadLetter(NamedTuple):
    """A record that was given up, and why."""

    raw: RawRecord
    request: Request | None
    code: ReasonCode
    attempts: int
    first_error: str
    failure: Failure


class ClaimedDeadLetter(NamedTuple):
    """A dead letter on its way to the dead-letter topic."""

    id: int
    raw: RawRecord
    error_type: str
    message: str
    #: which of its deaths, should it have been brought back
    dead_at: datetime


_STORY = f"{BYTES_COLUMNS}, coupon_id, user_id, request_id, code, attempts, first_error, error_type, error_message"
_COLUMNS = f"{PLACE_COLUMNS}, {_STORY}"
_NEW = (
    f"unnest({RAW_ARRAYS}, CAST(:coupons AS bigint[]), CAST(:users AS bigint[]), CAST(:ids AS text[]),"
    f" CAST(:codes AS text[]), CAST(:attempts AS int[]), CAST(:firsts AS text[]), CAST(:kinds AS text[]),"
    f" CAST(:messages AS text[])) AS new({_COLUMNS})"
)
_INSERT = text(
    f"INSERT INTO dead_letters (log_id, {_COLUMNS}) SELECT :log, {_COLUMNS} FROM {_NEW}"
    ' ON CONFLICT (log_id, partition, "offset") DO UPDATE SET code = excluded.code, attempts = excluded.attempts,'
    " error_type = excluded.error_type, error_message = excluded.error_message, state = 'new', dead_at = now(),"
    " lease_until = NULL, forwarded_at = NULL, dlt_partition = NULL, dlt_offset = NULL"
)


def insert(tx: Connection, log_id: int, dead_letters: Sequence[NewDeadLetter]) -> None:
    """Stores dead letters of this log; one that died again after a replay is new again, and forwarded again."""
    for some in split_by_bytes(dead_letters, lambda letter: letter.raw):
        tx.execute(_INSERT, {"log": log_id, **_arrays(some)})


_INSERT_FOREIGN = text(
    f"INSERT INTO dead_letters (dlt_partition, dlt_offset, {_STORY}, forwarded_at)"
    f" SELECT {_COLUMNS}, now() FROM {_NEW} ON CONFLICT DO NOTHING"
)


def insert_foreign(tx: Connection, dead_letters: Sequence[NewDeadLetter]) -> None:
    """Stores dead letters that someone else wrote to the topic, unless they were stored before."""
    for some in split_by_bytes(dead_letters, lambda letter: letter.raw):
        tx.execute(_INSERT_FOREIGN, _arrays(some))


class ReceivedDeadLetter(NamedTuple):
    """A dead letter as the listener read it: the record that it says it is, and its own place in the topic."""

    origin: LogPosition
    #: of the record itself: it tells which life of the log it is from
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


def confirm(tx: Connection, seen: Sequence[ReceivedDeadLetter]) -> set[ReceivedDeadLetter]:
    """Notes where the listener first saw dead letters of ours; which of them are ours.

    That they were forwarded is the forwarder's to say: a copy seen late may be that of an earlier death.
    """
    numbers = tx.execute(
        _CONFIRM,
        {
            "partitions": [one.origin.partition for one in seen],
            "offsets": [one.origin.offset for one in seen],
            "appended": [to_datetime(one.appended_at_ms) for one in seen],
            "dlt_partitions": [one.dlt_position.partition for one in seen],
            "dlt_offsets": [one.dlt_position.offset for one in seen],
        },
    ).scalars()
    return {seen[number - 1] for number in numbers}


def claim(tx: Connection, lease_seconds: float, limit: int) -> list[ClaimedDeadLetter]:
    """Leases up to `limit` dead letters that are not in their topic yet."""
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
    """Notes that the broker has acknowledged these; one that has died again since waits to be forwarded again."""
    tx.execute(
        text(
            "WITH taken AS (SELECT id FROM dead_letters"
            "  JOIN unnest(CAST(:ids AS bigint[]), CAST(:deaths AS timestamptz[])) AS taken(letter, death)"
            "  ON id = letter AND dead_at = death ORDER BY id FOR NO KEY UPDATE OF dead_letters)"
            " UPDATE dead_letters SET forwarded_at = now() FROM taken WHERE dead_letters.id = taken.id"
        ),
        {"ids": [letter.id for letter in acknowledged], "deaths": [letter.dead_at for letter in acknowledged]},
    )


def has_overdue(tx: Connection, grace_seconds: float) -> bool:
    """Whether a dead letter waits for so long, that the hint to forward it must have been lost."""
    query = (
        "SELECT EXISTS (SELECT FROM dead_letters WHERE forwarded_at IS NULL"
        " AND dead_at < now() - make_interval(secs => :grace) AND (lease_until IS NULL OR lease_until < now()))"
    )
    return bool(tx.execute(text(query), {"grace": grace_seconds}).scalar_one())


def count_recent(tx: Connection, seconds: float) -> int:
    """How many requests and records died in the last `seconds`."""
    query = "SELECT count(*) FROM dead_letters WHERE dead_at > now() - make_interval(secs => :seconds)"
    return int(tx.execute(text(query), {"seconds": seconds}).scalar_one())


def _arrays(dead_letters: Sequence[NewDeadLetter]) -> dict[str, list[Any]]:
    requests = [letter.request for letter in dead_letters]
    return {
        **raw_arrays([letter.raw for letter in dead_letters]),
        "coupons": [request and request.coupon_id for request in requests],
        "users": [request and request.user_id for request in requests],
        "ids": [request and request.request_id for request in requests],
        "codes": [letter.code.value for letter in dead_letters],
        "attempts": [letter.attempts for letter in dead_letters],
        "firsts": [letter.first_error for letter in dead_letters],
        "kinds": [letter.failure.error_type for letter in dead_letters],
        "messages": [letter.failure.message for letter in dead_letters],
    }
