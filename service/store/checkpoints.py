"""How far each partition has been decided."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, text

from service.store.engine import to_datetime, to_milliseconds


class Checkpoint(NamedTuple):
    """The next offset to decide, and the moment before which all that was appended has been decided."""

    next_offset: int
    watermark_ms: int


class CheckpointAdvance(NamedTuple):
    """A partition's step from one offset to another."""

    partition: int
    expected_offset: int
    next_offset: int
    watermark_ms: int


def ensure_log(tx: Connection, topic: str, topic_id: str) -> int:
    """The number under which this life of the topic is known, given at first sight."""
    tx.execute(
        text("INSERT INTO logs (topic, topic_id) VALUES (:topic, :topic_id) ON CONFLICT (topic_id) DO NOTHING"),
        {"topic": topic, "topic_id": topic_id},
    )
    return int(tx.execute(text("SELECT id FROM logs WHERE topic_id = :id"), {"id": topic_id}).scalar_one())


def ensure_checkpoints(tx: Connection, log_id: int, beginnings: Mapping[int, int]) -> dict[int, Checkpoint]:
    """Where to go on, by partition; one that was never decided starts at its beginning, which is stored."""
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
    """Every stored position of the log, by partition."""
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
    """Locks each partition that still is where expected; the others, which someone else has moved, are returned."""
    locked = tx.execute(_LOCK, {"log": log_id, "partitions": [*expected], "expected": [*expected.values()]}).scalars()
    return expected.keys() - set(locked)


_ADVANCE = text(
    "UPDATE offsets SET next_offset = move.next_offset, watermark = greatest(offsets.watermark, move.watermark)"
    " FROM unnest(CAST(:partitions AS int[]), CAST(:expected AS bigint[]), CAST(:next AS bigint[]),"
    "             CAST(:passed AS timestamptz[])) AS move(partition, expected, next_offset, watermark)"
    " WHERE offsets.log_id = :log AND offsets.partition = move.partition AND offsets.next_offset = move.expected"
)


def advance(tx: Connection, log_id: int, moves: Iterable[CheckpointAdvance]) -> None:
    """Moves each partition that still is where expected."""
    moves = list(moves)
    tx.execute(
        _ADVANCE,
        {
            "log": log_id,
            "partitions": [move.partition for move in moves],
            "expected": [move.expected_offset for move in moves],
            "next": [move.next_offset for move in moves],
            "passed": [to_datetime(move.watermark_ms) for move in moves],
        },
    )
