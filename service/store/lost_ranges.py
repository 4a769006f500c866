"""Queries on lost ranges: accepted records that were deleted before they were decided."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from service.domain.request import LogPosition
from service.store.arrays import bigints
from service.timestamps import to_datetime, to_milliseconds


class LostRange(NamedTuple):
    """Offsets of one partition whose records are gone, and who recorded that."""

    log_id: int
    partition: int
    first_offset: int
    #: the first offset after the range; None: everything that a deleted log held from first_offset on
    end_offset: int | None
    reason: str
    recorded_by: str


def insert(tx: Connection, lost: Sequence[LostRange]) -> None:
    """Record lost ranges."""
    for one in lost:
        tx.execute(
            text(
                "INSERT INTO lost_ranges (log_id, partition, first_offset, end_offset, reason, recorded_by)"
                " VALUES (:log_id, :partition, :first_offset, :end_offset, :reason, :recorded_by)"
            ),
            one._asdict(),
        )


def of_log(tx: Connection, log_id: int | None = None) -> list[LostRange]:
    """Return the lost ranges of a log, or of all of them, in the order of the log."""
    rows = tx.execute(
        text(
            "SELECT log_id, partition, first_offset, end_offset, reason, recorded_by FROM lost_ranges"
            " WHERE log_id = coalesce(:log, log_id) ORDER BY log_id, partition, first_offset"
        ),
        {"log": log_id},
    )
    return [LostRange(*row) for row in rows]


def last_recorded_ms(tx: Connection) -> dict[int, int]:
    """Return when records were last recorded as lost (milliseconds since 1970 UTC), of each partition that lost any."""
    rows = tx.execute(text("SELECT partition, max(recorded_at) FROM lost_ranges GROUP BY partition"))
    return {partition: to_milliseconds(at) for partition, at in rows}


class LostRequest(NamedTuple):
    """A request whose record is lost and that the gate still names."""

    log_position: LogPosition
    coupon_id: int
    user_id: int
    request_id: str
    minted_at_ms: int


def advance_past(tx: Connection, log_id: int, partition: int, next_offset: int) -> None:
    """Move a checkpoint over deleted records; the caller holds its lock."""
    tx.execute(
        text(
            "UPDATE offsets SET next_offset = :next, advanced_to = advanced_to + :next - next_offset"
            " WHERE log_id = :log AND partition = :partition"
        ),
        {"log": log_id, "partition": partition, "next": next_offset},
    )


def lock_checkpoint(tx: Connection, log_id: int, partition: int) -> int | None:
    """Lock a partition's checkpoint and return its next offset, or None if it has none."""
    query = text("SELECT next_offset FROM offsets WHERE log_id = :log AND partition = :partition FOR NO KEY UPDATE")
    found = tx.execute(query, {"log": log_id, "partition": partition}).scalar_one_or_none()
    return None if found is None else int(found)


_INSERT_DEAD = text(
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, code, attempts,'
    " requested_at, decided_at)"
    " SELECT :log, :partition, \"offset\", coupon_id, user_id, request_id, 'dead', 'lost', 0, requested_at, :at"
    " FROM unnest(CAST(:offsets AS bigint[]), CAST(:coupons AS bigint[]), CAST(:users AS bigint[]),"
    "  CAST(:ids AS text[]), CAST(:requested AS timestamptz[]))"
    '  AS lost("offset", coupon_id, user_id, request_id, requested_at)'
)


def insert_dead(tx: Connection, log_id: int, partition: int, lost: Sequence[LostRequest], decided_at: datetime) -> None:
    """Insert lost requests of one partition as dead, without a dead letter: their records are gone."""
    tx.execute(
        _INSERT_DEAD,
        {
            "log": log_id,
            "partition": partition,
            "at": decided_at,
            "offsets": bigints([one.log_position.offset for one in lost]),
            "coupons": bigints([one.coupon_id for one in lost]),
            "users": bigints([one.user_id for one in lost]),
            "ids": [one.request_id for one in lost],
            "requested": [to_datetime(one.minted_at_ms) for one in lost],
        },
    )
