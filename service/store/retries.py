"""Queries on held requests; a row is the truth, a Celery message only a hint to look at it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from service.domain.fates import Failure
from service.domain.record import Raw
from service.domain.request import Place
from service.store.raw import raw_columns, raw_of_row
from service.store.tables import RetryRow

_retries = RetryRow.__table__  # type: ignore[attr-defined]


class Held(NamedTuple):
    """A request that failed, with its raw record, the attempts made and what went wrong first."""

    raw: Raw
    attempts: int
    first_error: str


class Due(NamedTuple):
    """Held requests of one number of attempts whose hint was lost."""

    attempts: int
    places: list[Place]


def insert(tx: Connection, log: int, failed: Iterable[tuple[Raw, Failure]], next_attempt_at: datetime) -> None:
    """Stores requests after their first failed attempt."""
    rows = [
        {
            "log_id": log,
            **raw_columns(raw),
            "attempts": 1,
            "next_attempt_at": next_attempt_at,
            "first_error": str(failure),
            "error_kind": failure.kind,
            "error_message": failure.message,
        }
        for raw, failure in failed
    ]
    if rows:
        tx.execute(_retries.insert(), rows)


_PLACES = (
    "FROM unnest(CAST(:partitions AS int[]), CAST(:offsets AS bigint[])) AS asked(p, o)"
    ' WHERE retries.log_id = :log AND retries.partition = asked.p AND retries."offset" = asked.o'
)


def take(tx: Connection, log: int, places: Sequence[Place], attempts: int) -> list[Held]:
    """Locks those of the places that have had exactly `attempts` attempts and that nobody else is trying."""
    rows = tx.execute(
        text(
            f"SELECT retries.* {_PLACES.replace('WHERE', 'JOIN retries ON')} AND retries.attempts = :attempts"
            ' ORDER BY partition, "offset" FOR UPDATE OF retries SKIP LOCKED'
        ),
        {"log": log, "attempts": attempts, **_asked(places)},
    )
    return [Held(raw_of_row(row), row.attempts, row.first_error) for row in rows]


def postpone(tx: Connection, log: int, places: Sequence[Place], failure: Failure, next_attempt_at: datetime) -> None:
    """Writes down one more failed attempt and when the next one is due."""
    tx.execute(
        text(
            "UPDATE retries SET attempts = attempts + 1, next_attempt_at = :at, error_kind = :kind,"
            f" error_message = :message {_PLACES}"
        ),
        {"log": log, "at": next_attempt_at, "kind": failure.kind, "message": failure.message, **_asked(places)},
    )


def remove(tx: Connection, log: int, places: Sequence[Place]) -> None:
    """Forgets requests that have been decided."""
    tx.execute(text(f"DELETE FROM retries USING {_PLACES.removeprefix('FROM ')}"), {"log": log, **_asked(places)})


def overdue(tx: Connection, log: int, grace_seconds: float, again_seconds: float, limit: int) -> list[Due]:
    """Held requests that nobody tried within `grace_seconds` after they were due; not told again for a while."""
    rows = tx.execute(
        text(
            "UPDATE retries SET next_attempt_at = now() + make_interval(secs => :again)"
            ' WHERE (log_id, partition, "offset") IN (SELECT log_id, partition, "offset" FROM retries'
            "  WHERE log_id = :log AND next_attempt_at < now() - make_interval(secs => :grace)"
            "  ORDER BY next_attempt_at LIMIT :limit FOR UPDATE SKIP LOCKED)"
            ' RETURNING partition, "offset" AS at, attempts'
        ),
        {"log": log, "grace": grace_seconds, "again": again_seconds, "limit": limit},
    ).all()
    by_attempts: dict[int, list[Place]] = {}
    for row in rows:
        by_attempts.setdefault(row.attempts, []).append(Place(row.partition, row.at))
    return [Due(attempts, sorted(places)) for attempts, places in by_attempts.items()]


def _asked(places: Sequence[Place]) -> dict[str, list[int]]:
    return {"partitions": [place.partition for place in places], "offsets": [place.offset for place in places]}
