"""The history of a request: what happened to it, as a list of events."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from service.domain.request import ReasonCode, RequestState


class HistoryEventKind(StrEnum):
    """What happened; events of the same time are in this order."""

    #: the API made the request id; of a foreign record: the time that its producer named
    REQUESTED = "requested"
    #: the broker appended the record
    APPENDED = "appended"
    #: an attempt to issue it failed
    ATTEMPT_FAILED = "attempt_failed"
    #: its state became final
    DECIDED = "decided"
    #: its dead letter was written to the topic of dead letters
    FORWARDED = "forwarded"
    #: an operator had its dead letter decided again
    REPLAYED = "replayed"
    #: an operator discarded its dead letter
    DISCARDED = "discarded"
    #: the receiver of notices did not accept one; of several attempts, the last one that failed
    NOTICE_FAILED = "notice_failed"
    #: the receiver of notices accepted one
    NOTICE_DELIVERED = "notice_delivered"


class HistoryEvent(NamedTuple):
    """One event. The fields that its kind does not have are None."""

    kind: HistoryEventKind
    #: None: not known
    at: datetime | None
    #: of the record; of `forwarded`: on the topic of dead letters
    partition: int | None = None
    offset: int | None = None
    #: which attempt it was, from 1: to issue the request, or to deliver the notice
    attempt: int | None = None
    error: str | None = None
    #: of `decided` and `replayed`: the state that followed
    state: RequestState | None = None
    code: ReasonCode | None = None
    sequence: int | None = None
    dead_letter_id: int | None = None
    #: who replayed or discarded it: an API key, or a user of the commands
    by: str | None = None
    delivery_id: str | None = None
    #: the HTTP status of the receiver's answer
    status: int | None = None


_ORDER = {kind: place for place, kind in enumerate(HistoryEventKind)}
#: what operators and systems did outside the decisions about the request
_INTERNAL_KINDS = frozenset(
    {HistoryEventKind.FORWARDED, HistoryEventKind.NOTICE_FAILED, HistoryEventKind.NOTICE_DELIVERED}
)


def in_order(events: Iterable[HistoryEvent]) -> list[HistoryEvent]:
    """Return the events in the order in which they happened.

    The times of `requested` and `appended` are of other clocks than the database's: these come first.
    """

    def place(event: HistoryEvent) -> tuple[bool, float, int]:
        of_database = _ORDER[event.kind] > _ORDER[HistoryEventKind.APPENDED]
        return of_database, event.at.timestamp() if event.at and of_database else 0.0, _ORDER[event.kind]

    return sorted(events, key=place)


def for_user(events: Iterable[HistoryEvent]) -> list[HistoryEvent]:
    """Return what the request's user and the back end may see.

    Left out are the texts of errors, which may describe the system, who acted, the ids of dead letters, and what was
    forwarded or delivered to others.
    """
    shown = (event for event in events if event.kind not in _INTERNAL_KINDS)
    return [event._replace(error=None, by=None, dead_letter_id=None) for event in shown]
