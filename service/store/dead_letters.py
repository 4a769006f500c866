"""Queries on dead letters on their way to the topic and back; one not yet forwarded is work for Celery."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text
from sqlalchemy.dialects.postgresql import insert as upsert

from service.domain.fates import Failure
from service.domain.record import Raw
from service.domain.request import Code, Place, Request
from service.store.engine import moment
from service.store.raw import raw_columns, raw_of_row
from service.store.tables import DeadLetterRow

_letters = DeadLetterRow.__table__  # type: ignore[attr-defined]


class DeadLetter(NamedTuple):
    """A record that was given up, and why."""

    raw: Raw
    request: Request | None
    code: Code
    attempts: int
    first_error: str
    failure: Failure


class Stored(NamedTuple):
    """A dead letter on its way to the dead-letter topic."""

    id: int
    raw: Raw
    kind: str
    message: str
    #: which of its deaths, should it have been brought back
    dead_at: datetime


_AGAIN = ("code", "attempts", "error_kind", "error_message")


def insert(tx: Connection, log: int, letters: Iterable[DeadLetter]) -> None:
    """Stores dead letters of this log; one that died again after a replay is new again, and forwarded again."""
    rows = [_columns(log, letter) for letter in letters]
    if not rows:
        return
    statement = upsert(_letters)
    again = {name: statement.excluded[name] for name in _AGAIN}
    fresh = {"state": "new", "dead_at": text("now()")}
    untold = dict.fromkeys(("lease_until", "forwarded_at", "dlt_partition", "dlt_offset"))
    origin = ["log_id", "partition", "offset"]
    tx.execute(statement.on_conflict_do_update(index_elements=origin, set_=again | fresh | untold), rows)


def insert_foreign(tx: Connection, letter: DeadLetter) -> bool:
    """Stores a dead letter that someone else wrote to the topic; False when it was stored before."""
    raw = letter.raw
    columns = _columns(None, letter) | {
        "partition": None,
        "offset": None,
        "dlt_partition": raw.place.partition,
        "dlt_offset": raw.place.offset,
        "forwarded_at": text("now()"),
    }
    statement = upsert(_letters).values(columns).on_conflict_do_nothing()
    return tx.execute(statement).rowcount == 1


def confirm(tx: Connection, origin: Place, appended_at_ms: int, seen_at: Place) -> bool:
    """Notes where the listener saw a dead letter of ours; False when it is not one of ours.

    The record's own append time tells which life of the log it is from. That it was forwarded is the forwarder's to
    say: a copy seen late may be that of an earlier death.
    """
    updated = tx.execute(
        text(
            "UPDATE dead_letters SET dlt_partition = coalesce(dlt_partition, :partition),"
            " dlt_offset = coalesce(dlt_offset, :offset) WHERE log_id IN (SELECT id FROM logs)"
            ' AND partition = :from_partition AND "offset" = :from_offset AND appended_at = :appended_at'
        ),
        {
            "appended_at": moment(appended_at_ms),
            "partition": seen_at.partition,
            "offset": seen_at.offset,
            "from_partition": origin.partition,
            "from_offset": origin.offset,
        },
    )
    return updated.rowcount == 1


def claim(tx: Connection, lease_seconds: float, limit: int) -> list[Stored]:
    """Leases up to `limit` dead letters that are not in their topic yet."""
    rows = tx.execute(
        text(
            "UPDATE dead_letters SET lease_until = now() + make_interval(secs => :lease) WHERE id IN ("
            " SELECT id FROM dead_letters WHERE forwarded_at IS NULL AND (lease_until IS NULL OR lease_until < now())"
            " ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED) RETURNING *"
        ),
        {"lease": lease_seconds, "limit": limit},
    )
    return sorted(Stored(row.id, raw_of_row(row), row.error_kind, row.error_message, row.dead_at) for row in rows)


def forwarded(tx: Connection, acknowledged: Sequence[Stored]) -> None:
    """Notes that the broker has acknowledged these; one that has died again since waits to be forwarded again."""
    tx.execute(
        text(
            "UPDATE dead_letters SET forwarded_at = now()"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:deaths AS timestamptz[])) AS taken(letter, death)"
            " WHERE id = letter AND dead_at = death"
        ),
        {"ids": [letter.id for letter in acknowledged], "deaths": [letter.dead_at for letter in acknowledged]},
    )


def waiting(tx: Connection, grace_seconds: float) -> bool:
    """Whether a dead letter waits for so long, that the hint to forward it must have been lost."""
    query = (
        "SELECT EXISTS (SELECT FROM dead_letters WHERE forwarded_at IS NULL"
        " AND dead_at < now() - make_interval(secs => :grace) AND (lease_until IS NULL OR lease_until < now()))"
    )
    return bool(tx.execute(text(query), {"grace": grace_seconds}).scalar_one())


def recent(tx: Connection, seconds: float) -> int:
    """How many requests and records died in the last `seconds`."""
    query = "SELECT count(*) FROM dead_letters WHERE dead_at > now() - make_interval(secs => :seconds)"
    return int(tx.execute(text(query), {"seconds": seconds}).scalar_one())


def _columns(log: int | None, letter: DeadLetter) -> dict[str, object]:
    request = letter.request
    return {
        "log_id": log,
        **raw_columns(letter.raw),
        "coupon_id": request and request.coupon_id,
        "user_id": request and request.user_id,
        "request_id": request and request.request_id,
        "code": letter.code.value,
        "attempts": letter.attempts,
        "first_error": letter.first_error,
        "error_kind": letter.failure.kind,
        "error_message": letter.failure.message,
    }
