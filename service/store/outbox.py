"""Queries on the outbox: work for Celery, written in the transaction of the decisions that cause it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from sqlalchemy import Connection, text

from service.domain.request import LogPosition
from service.limits import MAX_ERROR_LENGTH
from service.store.arrays import bigints

#: maximum number of offsets in one entry, and in one notice (POST)
MAX_OFFSETS_PER_ENTRY = 500


class OutboxKind(StrEnum):
    """What to do with the decisions of an entry."""

    NOTIFY = "notify"
    GATE = "gate"


class OffsetRange(NamedTuple):
    """Offsets of one partition, both ends included."""

    partition: int
    first: int
    last: int


class OutboxEntry(NamedTuple):
    """The requests of an offset range that were decided at decided_at."""

    id: int
    log_id: int
    range: OffsetRange
    decided_at: datetime
    attempts: int


def ranges_of(log_positions: Iterable[LogPosition]) -> list[OffsetRange]:
    """Return ranges that cover the log positions without the long gaps between them."""
    ranges: list[OffsetRange] = []
    for at in sorted(log_positions):
        last = ranges[-1] if ranges else None
        if last and at.partition == last.partition and at.offset - last.last <= MAX_OFFSETS_PER_ENTRY:
            ranges[-1] = last._replace(last=at.offset)
        else:
            ranges.append(OffsetRange(at.partition, at.offset, at.offset))
    return ranges


INSERT = text(
    "INSERT INTO outbox (kind, log_id, partition, first_offset, last_offset, decided_at)"
    " SELECT kind, :log, partition, first_offset, last_offset, :at"
    " FROM unnest(CAST(:kinds AS text[])) AS kinds(kind),"
    "  unnest(CAST(:partitions AS bigint[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]))"
    "   AS pieces(partition, first_offset, last_offset) ORDER BY kind, partition, first_offset"
)


def insert(
    tx: Connection, log_id: int, kinds: Iterable[OutboxKind], ranges: Sequence[OffsetRange], decided_at: datetime
) -> None:
    """Write one entry per kind and range, several for a range longer than MAX_OFFSETS_PER_ENTRY."""
    if kind_names := [kind.value for kind in kinds]:
        tx.execute(INSERT, insert_values(log_id, kind_names, ranges, decided_at))


def insert_values(
    log_id: int, kind_names: Sequence[str], ranges: Sequence[OffsetRange], decided_at: datetime | str
) -> dict[str, Any]:
    """Return the parameters of INSERT."""
    size = MAX_OFFSETS_PER_ENTRY
    pieces = [
        OffsetRange(whole.partition, first, min(first + size - 1, whole.last))
        for whole in ranges
        for first in range(whole.first, whole.last + 1, size)
    ]
    return {
        "kinds": kind_names,
        "log": log_id,
        "partitions": bigints([piece.partition for piece in pieces]),
        "firsts": bigints([piece.first for piece in pieces]),
        "lasts": bigints([piece.last for piece in pieces]),
        "at": decided_at,
    }


#: without a known delivery the planner reduces it to `delivery_id IS NULL`
_SAME_DELIVERY = "(delivery_id = CAST(:known AS uuid) OR CAST(:known AS uuid) IS NULL AND delivery_id IS NULL)"
_CLAIM = text(
    "UPDATE outbox SET lease_until = now() + make_interval(secs => :lease), attempts = least(attempts + 1, 32767),"
    " delivery_id = coalesce(delivery_id, :delivery_id) WHERE id IN (SELECT id FROM ("
    "  SELECT id, last_offset - first_offset + 1 AS covered,"
    "   sum(last_offset - first_offset + 1) OVER (ORDER BY id) - (last_offset - first_offset + 1) AS before"
    f"  FROM (SELECT * FROM outbox WHERE kind = :kind AND {_SAME_DELIVERY}"
    "   AND next_attempt_at <= now() AND (lease_until IS NULL OR lease_until < now())"
    "   ORDER BY id LIMIT :rows) AS due) AS summed WHERE before + covered <= :offsets OR before = 0) RETURNING *"
)
_MAX_ROWS_PER_CLAIM = 500


class OutboxBatch(NamedTuple):
    """Entries that are delivered together, in every attempt under the same id, which a notice sends as webhook-id."""

    delivery_id: UUID
    entries: list[OutboxEntry]


def claim_batch(
    tx: Connection, kind: OutboxKind, lease_seconds: float, offsets: int = MAX_OFFSETS_PER_ENTRY
) -> OutboxBatch | None:
    """Lease due entries of a kind, up to `offsets` offsets; a batch that was claimed before comes first, unchanged.

    Claims of one kind are serialized by an advisory lock, so that a batch is never split between two claims.
    """
    tx.execute(text("SELECT pg_advisory_xact_lock(hashtext(:kind))"), {"kind": f"outbox {kind}"})
    failed = tx.execute(
        text(
            "SELECT delivery_id FROM outbox WHERE kind = :kind AND delivery_id IS NOT NULL AND next_attempt_at <= now()"
            " AND (lease_until IS NULL OR lease_until < now()) ORDER BY id LIMIT 1"
        ),
        {"kind": kind.value},
    ).scalar_one_or_none()
    delivery_id = failed or uuid4()
    rows = tx.execute(
        _CLAIM,
        {
            "kind": kind.value,
            "lease": lease_seconds,
            "delivery_id": delivery_id,
            "known": failed,
            "rows": 1_000_000 if failed else _MAX_ROWS_PER_CLAIM,
            "offsets": 2**62 if failed else offsets,
        },
    ).all()
    entries = sorted(
        OutboxEntry(
            row.id,
            row.log_id,
            OffsetRange(row.partition, row.first_offset, row.last_offset),
            row.decided_at,
            row.attempts,
        )
        for row in rows
    )
    return OutboxBatch(delivery_id, entries) if entries else None


def delete_batch(tx: Connection, batch: OutboxBatch) -> None:
    """Delete the entries of a finished batch."""
    tx.execute(text("DELETE FROM outbox WHERE delivery_id = :delivery_id"), {"delivery_id": batch.delivery_id})


_KEEP = text(
    "WITH done AS (DELETE FROM outbox WHERE delivery_id = :delivery_id RETURNING *)"
    " INSERT INTO notices (log_id, partition, first_offset, decided_at, last_offset, delivery_id, attempts, status,"
    " failed_at, error) SELECT log_id, partition, first_offset, decided_at, last_offset, delivery_id, attempts,"
    " :status, failed_at, error FROM done ON CONFLICT DO NOTHING"
)


def keep_delivered(tx: Connection, batch: OutboxBatch, status: int) -> None:
    """Move the entries of a notice that the receiver accepted to table `notices`, with the HTTP status of its answer.

    The history of a request reads them there, and nothing else does.
    """
    tx.execute(_KEEP, {"delivery_id": batch.delivery_id, "status": status})


def postpone_batch(tx: Connection, batch: OutboxBatch, seconds: float, error: str) -> None:
    """Release the lease of a batch whose delivery failed with `error`; it is due again after `seconds`."""
    tx.execute(
        text(
            "UPDATE outbox SET lease_until = NULL, next_attempt_at = now() + make_interval(secs => :seconds),"
            " failed_at = now(), error = :error WHERE delivery_id = :delivery_id"
        ),
        {"delivery_id": batch.delivery_id, "seconds": seconds, "error": error[:MAX_ERROR_LENGTH]},
    )


def overdue_kinds(tx: Connection, grace_seconds: float) -> list[OutboxKind]:
    """Return the kinds with entries due for longer than the grace period: their message was lost."""
    rows = tx.execute(
        text(
            "SELECT DISTINCT kind FROM outbox WHERE next_attempt_at < now() - make_interval(secs => :grace)"
            " AND (lease_until IS NULL OR lease_until < now())"
        ),
        {"grace": grace_seconds},
    )
    return [OutboxKind(row.kind) for row in rows]
