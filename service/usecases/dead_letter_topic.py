"""Step 7: forwards dead letters to their topic, and takes in what stands there."""

import logging
from collections.abc import Sequence

from confluent_kafka import Producer
from sqlalchemy import Engine

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.record import RawRecord
from service.domain.request import ReasonCode
from service.store import dead_letters
from service.store.dead_letters import NewDeadLetter, ReceivedDeadLetter
from service.stream import dead_letter_records as letters
from service.stream.codec import RecordReader
from service.stream.topics import Topic

_log = logging.getLogger(__name__)
_AT_ONCE = 500


def forward_dead_letters(engine: Engine, producer: Producer, lease_seconds: float, timeout_seconds: float) -> int:
    """Forwards what waits, up to 500 dead letters, and returns how many the broker acknowledged.

    Killed before the acknowledgement is written down, the same are forwarded again after the lease; the listener
    takes the second copy for the first. Those not acknowledged stay and are tried again after the lease.
    """
    with engine.begin() as tx:
        claimed = dead_letters.claim(tx, lease_seconds, _AT_ONCE)
    crash_points.reach(CrashPoint.DEAD_LETTERS_CLAIMED)
    taken = set(
        letters.produce_dead_letters(producer, [letter[:4] for letter in claimed], timeout_seconds) if claimed else []
    )
    acknowledged = [letter for letter in claimed if letter.id in taken]
    crash_points.reach(CrashPoint.DEAD_LETTERS_ACKNOWLEDGED)
    if acknowledged:
        with engine.begin() as tx:
            dead_letters.mark_forwarded(tx, acknowledged)
    return len(acknowledged)


def store_received(engine: Engine, reader: RecordReader, raws: Sequence[RawRecord]) -> None:
    """Confirms dead letters of ours by their origin, and stores those that someone else wrote; logs each."""
    ours = {raw.log_position: seen for raw in raws if (seen := _seen(raw))}
    with engine.begin() as tx:
        confirmed = dead_letters.confirm(tx, [*ours.values()])
        strangers = [raw for raw in raws if ours.get(raw.log_position) not in confirmed]
        dead_letters.insert_foreign(tx, [_foreign(reader, raw) for raw in strangers])
        crash_points.reach(CrashPoint.DEAD_LETTERS_STORED)
    crash_points.reach(CrashPoint.DEAD_LETTERS_CONFIRMED)
    for raw in raws:
        _tell(raw)


def _seen(raw: RawRecord) -> ReceivedDeadLetter | None:
    """A dead letter that says it is ours."""
    origin = letters.parse_origin(raw.headers)
    if origin is None or origin.topic != Topic.ISSUE_COUPON:
        return None
    return ReceivedDeadLetter(origin.log_position, origin.appended_at_ms, raw.log_position)


def _foreign(reader: RecordReader, raw: RawRecord) -> NewDeadLetter:
    failure = letters.parse_failure(raw.headers)
    return NewDeadLetter(raw, reader.decode(raw).request, ReasonCode.POISON, 0, str(failure), failure)


def _tell(raw: RawRecord) -> None:
    origin = letters.parse_origin(raw.headers)
    _log.error(
        "dead letter",
        extra={
            "origin": origin and tuple(origin.log_position),
            "value": _shown(raw.value),
            "reason": str(letters.parse_failure(raw.headers)),
        },
    )


def _shown(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "backslashreplace")[:200]
