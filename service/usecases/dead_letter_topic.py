"""Forwards dead letters to their topic, and stores what is read from that topic."""

from collections.abc import Sequence

from sqlalchemy import Engine

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.record import RawRecord
from service.domain.request import LogPosition, ReasonCode
from service.log import get_logger
from service.log_events import LogEvent
from service.store import dead_letters
from service.store.dead_letters import NewDeadLetter, ReceivedDeadLetter
from service.stream import dead_letter_records
from service.stream.codec import RecordReader
from service.stream.dead_letter_records import DeadLetterProducer
from service.stream.topics import Topic

_log = get_logger(__name__)
_BATCH_SIZE = 500
_MAX_LOGGED_LENGTH = 200


def forward_dead_letters(
    engine: Engine, producer: DeadLetterProducer, lease_seconds: float, timeout_seconds: float
) -> int:
    """Produce up to 500 waiting dead letters and return how many the broker acknowledged within the timeout.

    Those not acknowledged are claimed again after the lease. After a crash between the acknowledgement and its note in
    the database, the same dead letters are produced again; the listener treats the second copy like the first.
    """
    with engine.begin() as tx:
        claimed = dead_letters.claim(tx, lease_seconds, _BATCH_SIZE)
    crash_points.reach(CrashPoint.DEAD_LETTERS_CLAIMED)
    acknowledged_ids = set(producer.produce([one[:4] for one in claimed], timeout_seconds) if claimed else [])
    acknowledged = [one for one in claimed if one.id in acknowledged_ids]
    crash_points.reach(CrashPoint.DEAD_LETTERS_ACKNOWLEDGED)
    if acknowledged:
        with engine.begin() as tx:
            dead_letters.mark_forwarded(tx, acknowledged)
    return len(acknowledged)


def store_received(engine: Engine, reader: RecordReader, raws: Sequence[RawRecord]) -> None:
    """Confirm this service's dead letters by their origin and store foreign ones, in one transaction; log each.

    A record is this service's if its headers name an origin in the request log and that dead letter is stored. Storing
    the same records twice changes nothing, so a crash at any line is repaired by reading them again.
    """
    own: dict[LogPosition, ReceivedDeadLetter] = {}
    for raw in raws:
        origin = dead_letter_records.parse_origin(raw.headers)
        if origin is not None and origin.topic == Topic.ISSUE_COUPON:
            own[raw.log_position] = ReceivedDeadLetter(origin.log_position, origin.appended_at_ms, raw.log_position)
    with engine.begin() as tx:
        confirmed = dead_letters.confirm(tx, [*own.values()])
        foreign = []
        for raw in raws:
            if own.get(raw.log_position) not in confirmed:
                failure = dead_letter_records.parse_failure(raw.headers)
                request = reader.decode(raw, Topic.DEAD_LETTERS).request
                foreign.append(NewDeadLetter(raw, request, ReasonCode.POISON, 0, str(failure), failure))
        dead_letters.insert_foreign(tx, foreign)
        crash_points.reach(CrashPoint.DEAD_LETTERS_STORED)
    crash_points.reach(CrashPoint.DEAD_LETTERS_CONFIRMED)
    for raw in raws:
        origin = dead_letter_records.parse_origin(raw.headers)
        _log.error(
            LogEvent.DEAD_LETTER_RECEIVED,
            partition=raw.log_position.partition,
            offset=raw.log_position.offset,
            origin=origin and tuple(origin.log_position),
            value=(raw.value or b"").decode("utf-8", "backslashreplace")[:_MAX_LOGGED_LENGTH],
            reason=str(dead_letter_records.parse_failure(raw.headers)),
        )
