"""Queries on offsets: how far each partition has been decided."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, text

from service.store.logs import Log, get_open
from service.timestamps import to_datetime, to_milliseconds


class Checkpoint(NamedTuple):
    """The next offset to decide, and the watermark: every record appended before it has been decided."""

    next_offset: int
    watermark_ms: int


class CheckpointAdvance(NamedTuple):
    """The change of a partition's checkpoint from one offset to another."""

    partition: int
    expected_offset: int
    next_offset: int
    watermark_ms: int


def ensure_checkpoints(tx: Connection, log_id: int, beginnings: Mapping[int, int]) -> dict[int, Checkpoint]:
    """Return the checkpoints of the partitions in `beginnings`; a partition without one gets its beginning."""
    tx.execute(
        text(
            "INSERT INTO offsets (log_id, partition, next_offset, advanced_to)"
            " SELECT :log, partition, beginning, beginning"
            " FROM unnest(CAST(:partitions AS int[]), CAST(:offsets AS bigint[])) AS new(partition, beginning)"
            " ON CONFLICT DO NOTHING"
        ),
        {"log": log_id, "partitions": list(beginnings), "offsets": list(beginnings.values())},
    )
    return {partition: at for partition, at in current_checkpoints(tx, log_id).items() if partition in beginnings}


def of_open_log(tx: Connection) -> tuple[Log, dict[int, Checkpoint]]:
    """Return the log that is decided now and its checkpoints by partition, from one snapshot; raise Unavailable."""
    rows = tx.execute(
        text(
            "SELECT logs.id, topic_id, partition, next_offset, watermark FROM logs"
            " LEFT JOIN offsets ON offsets.log_id = logs.id WHERE closed_at IS NULL"
        )
    ).all()
    log = Log(rows[0].id, rows[0].topic_id) if rows else get_open(tx)
    return log, {
        row.partition: Checkpoint(row.next_offset, to_milliseconds(row.watermark))
        for row in rows
        if row.partition is not None
    }


def current_checkpoints(tx: Connection, log_id: int) -> dict[int, Checkpoint]:
    """Return every checkpoint of the log, by partition."""
    rows = tx.execute(
        text("SELECT partition, next_offset, watermark FROM offsets WHERE log_id = :log"), {"log": log_id}
    )
    return {row.partition: Checkpoint(row.next_offset, to_milliseconds(row.watermark)) for row in rows}


LOCK = text(
    "SELECT partition FROM offsets JOIN unnest(CAST(:partitions AS int[]), CAST(:expected AS bigint[]))"
    " AS ours(partition, expected) USING (partition)"
    " WHERE log_id = :log AND next_offset = expected AND NOT closed ORDER BY partition FOR NO KEY UPDATE OF offsets"
)


def lock_values(log_id: int, expected: Mapping[int, int]) -> dict[str, Any]:
    """Return the parameters of LOCK, which returns the partitions that are at their expected offset."""
    return {"log": log_id, "partitions": [*expected], "expected": [*expected.values()]}


def lock_expected(tx: Connection, log_id: int, expected: Mapping[int, int]) -> set[int]:
    """Lock the partitions that are at their expected offset; return the others.

    Another process has advanced those, or their log is closed.
    """
    locked = tx.execute(LOCK, lock_values(log_id, expected)).scalars()
    return expected.keys() - set(locked)


ADVANCE = text(
    "UPDATE offsets SET next_offset = move.next_offset,"
    "  advanced_to = advanced_to + move.next_offset - move.expected,"
    "  watermark = greatest(offsets.watermark, move.watermark)"
    " FROM unnest(CAST(:partitions AS int[]), CAST(:expected AS bigint[]), CAST(:next AS bigint[]),"
    "             CAST(:passed AS timestamptz[])) AS move(partition, expected, next_offset, watermark)"
    " WHERE offsets.log_id = :log AND offsets.partition = move.partition AND offsets.next_offset = move.expected"
)


def advance(tx: Connection, log_id: int, advances: Iterable[CheckpointAdvance]) -> None:
    """Advance each partition that is at its expected offset."""
    tx.execute(ADVANCE, advance_values(log_id, list(advances)))


def advance_values(log_id: int, advances: Sequence[CheckpointAdvance]) -> dict[str, Any]:
    """Return the parameters of ADVANCE."""
    return {
        "log": log_id,
        "partitions": [advance.partition for advance in advances],
        "expected": [advance.expected_offset for advance in advances],
        "next": [advance.next_offset for advance in advances],
        "passed": [to_datetime(advance.watermark_ms) for advance in advances],
    }


class PartitionProgress(NamedTuple):
    """A partition's checkpoint, if it has one, and the seconds since its watermark, if it was ever advanced."""

    checkpoint: Checkpoint | None
    watermark_age_seconds: float | None


def progress(tx: Connection, log_id: int, partitions: int) -> dict[int, PartitionProgress]:
    """Return the progress of partitions 0 to `partitions` - 1, by the database's clock."""
    rows = tx.execute(
        text(
            "SELECT number, next_offset, watermark,"
            " CAST(extract(epoch FROM clock_timestamp() - nullif(watermark, 'epoch')) AS float8) AS age"
            " FROM generate_series(0, :partitions - 1) AS number"
            " LEFT JOIN offsets ON partition = number AND log_id = :log ORDER BY number"
        ),
        {"log": log_id, "partitions": partitions},
    )
    return {
        row.number: PartitionProgress(
            None if row.next_offset is None else Checkpoint(row.next_offset, to_milliseconds(row.watermark)), row.age
        )
        for row in rows
    }
