"""Queries on logs: the lives of the topic, of which one is open."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from service.domain.error_code import ErrorCode
from service.domain.errors import Conflict, Unavailable


class Log(NamedTuple):
    """One life of the topic, from its creation until it is deleted."""

    id: int
    #: Kafka's id of the topic
    topic_id: str


class AdoptedLog(NamedTuple):
    """A log with its history."""

    log: Log
    adopted_by: str
    adopted_at: datetime
    #: None: it is the open one
    closed_at: datetime | None


_OPEN = text("SELECT id, topic_id FROM logs WHERE closed_at IS NULL")


def find_open(tx: Connection) -> Log | None:
    """Return the log whose records are decided now, or None in a new database."""
    row = tx.execute(_OPEN).one_or_none()
    return None if row is None else Log(*row)


def get_open(tx: Connection) -> Log:
    """Return the log whose records are decided now; raise Unavailable in a database that has none yet."""
    log = find_open(tx)
    if log is None:
        raise Unavailable("PostgreSQL", "it has no log yet: run `coupons migrate`")
    return log


def ensure_first(tx: Connection, topic: str, topic_id: str, opened_by: str) -> Log:
    """Return the open log. In a database without logs, this topic becomes the first one."""
    tx.execute(
        text(
            "INSERT INTO logs (topic, topic_id, adopted_by) SELECT :topic, :topic_id, :by"
            " WHERE NOT EXISTS (SELECT FROM logs) ON CONFLICT DO NOTHING"
        ),
        {"topic": topic, "topic_id": topic_id, "by": opened_by},
    )
    return get_open(tx)


def adopt(tx: Connection, topic: str, topic_id: str, partitions: int, adopted_by: str) -> tuple[Log, Log] | None:
    """Close the open log and open this one; return both, or None if this one is open already.

    The closed log's checkpoints stay where they are: an issuer that still decides it is fenced from now on. Raises
    Conflict for a log that was closed before.
    """
    before = tx.execute(text("SELECT id, topic_id FROM logs WHERE closed_at IS NULL FOR UPDATE")).one_or_none()
    closing = Log(*before) if before else get_open(tx)  # another process has adopted a log meanwhile
    if closing.topic_id == topic_id:
        return None
    if topic_id in topic_ids(tx).values():
        raise Conflict(
            ErrorCode.LOG_CLOSED, f"The log {topic_id} was closed when another was adopted; it cannot be opened."
        )
    tx.execute(
        text(
            "INSERT INTO offsets (log_id, partition, next_offset, advanced_to, closed)"
            " SELECT :log, partition, 0, 0, true FROM generate_series(0, :partitions - 1) AS partition"
            " ON CONFLICT (log_id, partition) DO UPDATE SET closed = true"
        ),
        {"log": closing.id, "partitions": partitions},
    )
    tx.execute(text("UPDATE logs SET closed_at = now() WHERE id = :log"), {"log": closing.id})
    opened = tx.execute(
        text("INSERT INTO logs (topic, topic_id, adopted_by) VALUES (:topic, :topic_id, :by) RETURNING id"),
        {"topic": topic, "topic_id": topic_id, "by": adopted_by},
    ).scalar_one()
    return closing, Log(opened, topic_id)


def count_unclosed_partitions(tx: Connection) -> int:
    """Count partitions of closed logs without a closing offset: another log was opened by hand."""
    query = "SELECT count(*) FROM offsets JOIN logs ON id = log_id WHERE closed_at IS NOT NULL AND NOT closed"
    return int(tx.execute(text(query)).scalar_one())


def topic_ids(tx: Connection) -> dict[int, str]:
    """Return Kafka's topic id of every log, by log id."""
    return {row.id: row.topic_id for row in tx.execute(text("SELECT id, topic_id FROM logs"))}


def history(tx: Connection) -> list[AdoptedLog]:
    """Return every log, the oldest first."""
    rows = tx.execute(text("SELECT id, topic_id, adopted_by, adopted_at, closed_at FROM logs ORDER BY id"))
    return [AdoptedLog(Log(row.id, row.topic_id), row.adopted_by, row.adopted_at, row.closed_at) for row in rows]
