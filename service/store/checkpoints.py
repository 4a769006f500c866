"""Queries on offsets: how far each partition has been decided."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

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


def ensure_log(tx: Connection, topic: str, topic_id: str) -> int:
    """Return the id of the log with this Kafka topic id, creating it if it does not exist."""
    tx.execute(
        text("INSERT INTO logs (topic, topic_id) VALUES (:topic, :topic_id) ON CONFLICT (topic_id) DO NOTHING"),
        {"topic": topic, "topic_id": topic_id},
    )
    return int(tx.execute(text("SELECT id FROM logs WHERE topic_id = :id"), {"id": topic_id}).scalar_one())


def ensure_checkpoints(tx: Connection, log_id: int, beginnings: Mapping[int, int]) -> dict[int, Checkpoint]:
    """Return the checkpoints of the partitions in `beginnings`; store the beginning of one that has none."""
    tx.execute(
        text(
            "INSERT INTO offsets (log_id, partition, next_offset)"
            " SELECT :log, * FROM unnest(CAST(:partitions AS int[]), CAST(:offsets AS bigint[]))"
            " ON CONFLICT DO NOTHING"
        ),
        {"log": log_id, "partitions": list(beginnings), "offsets": list(beginnings.values())},
    )
    return {partition: at for partition, at in current_checkpoints(tx, log_id).items() if partition in beginnings}


def current_checkpoints(tx: Connection, log_id: int) -> dict[int, Checkpoint]:
    """Return every checkpoint of the log, by partition."""
    rows = tx.execute(
        text("SELECT partition, next_offset, watermark FROM offsets WHERE log_id = :log"), {"log": log_id}
    )
    return {row.partition: Checkpoint(row.next_offset, to_milliseconds(row.watermark)) for row in rows}


_LOCK = text(
    "SELECT partition FROM offsets JOIN unnest(CAST(:partitions AS int[]), CAST(:expected AS bigint[]))"
    " AS ours(partition, expected) USING (partition)"
    " WHERE log_id = :log AND next_offset = expected ORDER BY partition FOR NO KEY UPDATE OF offsets"
)


def lock_expected(tx: Connection, log_id: int, expected: Mapping[int, int]) -> set[int]:
    """Lock the partitions that are at their expected offset; return the others, which another process advanced."""
    locked = tx.execute(_LOCK, {"log": log_id, "partitions": [*expected], "expected": [*expected.values()]}).scalars()
    return expected.keys() - set(locked)


_ADVANCE = text(
    "UPDATE offsets SET next_offset = move.next_offset, watermark = greatest(offsets.watermark, move.watermark)"
    " FROM unnest(CAST(:partitions AS int[]), CAST(:expected AS bigint[]), CAST(:next AS bigint[]),"
    "             CAST(:passed AS timestamptz[])) AS move(partition, expected, next_offset, watermark)"
    " WHERE offsets.log_id = :log AND offsets.partition = move.partition AND offsets.next_offset = move.expected"
)


def advance(tx: Connection, log_id: int, advances: Iterable[CheckpointAdvance]) -> None:
    """Advance each partition that is at its expected offset."""
    advances = list(advances)
    tx.execute(
        _ADVANCE,
        {
            "log": log_id,
            "partitions": [advance.partition for advance in advances],
            "expected": [advance.expected_offset for advance in advances],
            "next": [advance.next_offset for advance in advances],
            "passed": [to_datetime(advance.watermark_ms) for advance in advances],
        },
    )
