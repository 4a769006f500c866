"""Tells what happened to a request, from what the tables keep and from its record in the log."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine

from service.config import Settings
from service.domain.dead_letter import DeadLetterState
from service.domain.errors import Unavailable
from service.domain.request import FINAL_STATES, LogPosition, RequestState
from service.domain.request_history import HistoryEvent, HistoryEventKind, in_order
from service.store import logs, request_history
from service.store.engine import repeatable_read
from service.store.logs import Log
from service.store.request_history import FinalState, RequestKey, StoredHistory, StoredNotice
from service.stream import log_reader
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.timestamps import to_datetime
from service.usecases.lookup import RequestStatus

_ACTION_KINDS = {
    DeadLetterState.REPLAYED: HistoryEventKind.REPLAYED,
    DeadLetterState.DISCARDED: HistoryEventKind.DISCARDED,
}


class RequestHistory(NamedTuple):
    """A request as it is now, and what happened to it, in order."""

    request: RequestStatus
    events: list[HistoryEvent]


class _Stored(NamedTuple):
    """What one transaction read."""

    log: Log
    #: None: the request has no row
    key: RequestKey | None
    history: StoredHistory | None
    notices: list[StoredNotice]


class RequestHistoryReader:
    """Reads the history of requests; every call blocks."""

    def __init__(self, settings: Settings, engine: Engine, reader: RecordReader) -> None:
        self._settings = settings
        self._engine = engine
        self._reader = reader

    def read(self, request: RequestStatus, *, with_log: bool) -> RequestHistory:
        """Return the history of a request that a look-up found; raise Unavailable without the database.

        with_log: read the record in Kafka, if no table holds it, to learn when it was appended. That time is unknown
        without it, while Kafka does not answer, and for a record of an earlier log.
        """
        with repeatable_read(self._engine) as tx:
            key = request_history.find(tx, request.coupon_id, request.user_id, request.request_id)
            history = request_history.read(tx, key) if key else None
            notices = request_history.read_notices(tx, key, _final_states(history)) if key and history else []
            stored = _Stored(logs.get_open(tx), key, history, notices)
        appended_at = history and history.appended_at
        if appended_at is None and with_log:
            appended_at = self._find_append_time(request, stored)
        if history and history.final:
            final = history.final
            request = request._replace(state=final.state, code=final.code, sequence=final.sequence)
        return RequestHistory(request, in_order(_events(request, stored, appended_at)))

    def _find_append_time(self, request: RequestStatus, stored: _Stored) -> datetime | None:
        """Return when the broker appended the record of a request, or None if that is not known."""
        if request.offset is None or (stored.key and stored.key.log_id != stored.log.id):
            return None
        at = LogPosition(request.partition, request.offset)
        with suppress(Unavailable):
            raw = log_reader.find_record(self._settings, Topic.ISSUE_COUPON, at)
            found = raw and self._reader.decode(raw, stored.log.topic_id).request
            if found and found.request_id == request.request_id:
                return to_datetime(found.appended_at_ms)
        return None


def _final_states(history: StoredHistory | None) -> dict[datetime, FinalState]:
    """Return every final state that the request has had, by the time of its decision.

    Only a replay changes a final state, and only `dead`: earlier ones are known from the attempt after which it died.
    """
    if history is None:
        return {}
    states = {
        one.failed_at: FinalState(one.failed_at, RequestState.DEAD, one.dead_code, None)
        for one in history.failed_attempts
        if one.dead_code
    }
    return states | ({history.final.decided_at: history.final} if history.final else {})


def _events(request: RequestStatus, stored: _Stored, appended_at: datetime | None) -> Iterator[HistoryEvent]:
    yield HistoryEvent(HistoryEventKind.REQUESTED, to_datetime(request.requested_at_ms))
    if request.offset is not None:
        yield HistoryEvent(HistoryEventKind.APPENDED, appended_at, request.partition, request.offset)
    if stored.history:
        yield from _stored_events(stored.history)
        for notice in stored.notices:
            yield from _notice_events(notice, stored.history)
    elif request.state in FINAL_STATES and request.decided_at_ms is not None:  # it was lost with its record
        decided_at = to_datetime(request.decided_at_ms)
        yield HistoryEvent(HistoryEventKind.DECIDED, decided_at, state=request.state, code=request.code)


def _stored_events(history: StoredHistory) -> Iterator[HistoryEvent]:
    """Yield the attempts, the decisions, and what was done with the dead letter."""
    dead_letter = history.dead_letter
    dead_letter_id = dead_letter and dead_letter.id
    for attempt in history.failed_attempts:
        yield HistoryEvent(
            HistoryEventKind.ATTEMPT_FAILED, attempt.failed_at, attempt=attempt.number, error=attempt.error
        )
    for decided_at, state, code, sequence in _final_states(history).values():
        yield HistoryEvent(
            HistoryEventKind.DECIDED,
            decided_at,
            state=state,
            code=code,
            sequence=sequence,
            dead_letter_id=dead_letter_id if state is RequestState.DEAD else None,
        )
    if dead_letter and dead_letter.forwarded_at:
        yield HistoryEvent(
            HistoryEventKind.FORWARDED,
            dead_letter.forwarded_at,
            dead_letter.dlt_partition,
            dead_letter.dlt_offset,
            dead_letter_id=dead_letter_id,
        )
    for action in history.actions:
        yield HistoryEvent(
            _ACTION_KINDS[action.action],
            action.acted_at,
            state=action.state,
            code=action.code,
            dead_letter_id=dead_letter_id,
            by=action.acted_by,
        )


def _notice_events(notice: StoredNotice, history: StoredHistory) -> Iterator[HistoryEvent]:
    """Yield the last failed attempt to deliver a notice, and its delivery.

    What a notice announces is read when it is sent. So after a replay it does not announce that the request was dead,
    although the outbox's entry was written for that.
    """
    replays = (one.acted_at for one in history.actions if one.action is DeadLetterState.REPLAYED)
    replayed_at = min((at for at in replays if at > notice.decided_at), default=None)
    delivery_id, delivered_at = str(notice.delivery_id), notice.delivered_at
    events = [
        HistoryEvent(
            HistoryEventKind.NOTICE_FAILED,
            notice.failed_at,
            attempt=notice.attempts if delivered_at is None else notice.attempts - 1,
            error=notice.error,
            delivery_id=delivery_id,
        ),
        HistoryEvent(
            HistoryEventKind.NOTICE_DELIVERED,
            delivered_at,
            attempt=notice.attempts,
            delivery_id=delivery_id,
            status=notice.status,
        ),
    ]
    yield from (event for event in events if event.at and (replayed_at is None or event.at < replayed_at))
