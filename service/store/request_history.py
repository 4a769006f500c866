"""Reads everything that tables keep about one request."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from service.domain.dead_letter import DeadLetterState
from service.domain.request import ReasonCode, RequestState
from service.limits import MAX_ACTIONS_SHOWN
from service.store.outbox import MAX_OFFSETS_PER_ENTRY
from service.store.tables import LIVE_OR_ENDED_ROWS


class RequestKey(NamedTuple):
    """The record of a request."""

    log_id: int
    partition: int
    offset: int


class FinalState(NamedTuple):
    """A final state, and since when the request has it."""

    decided_at: datetime
    state: RequestState
    code: ReasonCode | None
    sequence: int | None


class StoredAttempt(NamedTuple):
    """A failed attempt to issue the request."""

    number: int
    failed_at: datetime
    error: str
    #: why the request was dead from then on; None: it was retried
    dead_code: ReasonCode | None


class StoredDeadLetter(NamedTuple):
    """The dead letter of the request, as of the last time that it died."""

    id: int
    forwarded_at: datetime | None
    #: on the topic of dead letters; None until its listener has read it there
    dlt_partition: int | None
    dlt_offset: int | None


class StoredAction(NamedTuple):
    """What an operator did with the dead letter."""

    action: DeadLetterState
    acted_by: str
    acted_at: datetime
    #: after a replay
    state: RequestState | None
    code: ReasonCode | None


class StoredNotice(NamedTuple):
    """A notice that announced a final state of the request, or still tries to."""

    decided_at: datetime
    delivery_id: UUID
    attempts: int
    #: None while it is not delivered; so is the status
    delivered_at: datetime | None
    status: int | None
    #: of the last attempt that failed; None if none has
    failed_at: datetime | None
    error: str | None


class StoredHistory(NamedTuple):
    """What is stored about a request besides its row."""

    #: of its record, while a table holds the record
    appended_at: datetime | None
    final: FinalState | None
    failed_attempts: Sequence[StoredAttempt]
    dead_letter: StoredDeadLetter | None
    #: the latest ones, oldest first
    actions: Sequence[StoredAction]


_OF_RECORD = 'log_id = :log_id AND partition = :partition AND "offset" = :offset'
_FIND = text(
    'SELECT log_id, partition, "offset" FROM requests'
    f" WHERE coupon_id = :coupon_id AND user_id = :user_id AND request_id = :request_id AND {LIVE_OR_ENDED_ROWS}"
)
_APPENDED = text(
    f"SELECT appended_at FROM retries WHERE {_OF_RECORD}"
    f" UNION ALL SELECT appended_at FROM dead_letters WHERE {_OF_RECORD} LIMIT 1"
)
_FINAL = text(f"SELECT decided_at, state, code, sequence FROM requests WHERE {_OF_RECORD} AND decided_at IS NOT NULL")
_ATTEMPTS = text(
    "SELECT attempt, failed_at, error_type || ': ' || error_message, dead_code FROM failed_attempts"
    f" WHERE {_OF_RECORD} ORDER BY attempt"
)
_DEAD_LETTER = text(f"SELECT id, forwarded_at, dlt_partition, dlt_offset FROM dead_letters WHERE {_OF_RECORD}")
_ACTIONS = text(
    "SELECT action, acted_by, acted_at, state, code FROM dead_letter_actions"
    " WHERE dead_letter_id = :id ORDER BY id DESC LIMIT :limit"
)
# An entry covers few offsets, so the beginning of those that may cover an offset is bounded from below.
_COVERS = (
    "log_id = :log_id AND partition = :partition AND first_offset BETWEEN :offset - :most AND :offset"
    " AND last_offset >= :offset AND decided_at = ANY(:decided_at)"
)
_NOTICES = text(
    "SELECT decided_at, delivery_id, attempts, delivered_at, status, failed_at, error"
    f" FROM notices WHERE {_COVERS}"
    " UNION ALL SELECT decided_at, delivery_id, attempts, NULL, NULL, failed_at, error"
    f" FROM outbox WHERE kind = 'notify' AND failed_at IS NOT NULL AND {_COVERS}"
)


def find(tx: Connection, coupon_id: int, user_id: int, request_id: str) -> RequestKey | None:
    """Return where the record of a request is, or None if the request has no row."""
    asked = {"coupon_id": coupon_id, "user_id": user_id, "request_id": request_id}
    row = tx.execute(_FIND, asked).one_or_none()
    return None if row is None else RequestKey(*row)


def read(tx: Connection, key: RequestKey) -> StoredHistory:
    """Return what is stored about a request; each query reads few rows by an index."""
    record = key._asdict()
    final = tx.execute(_FINAL, record).one_or_none()
    dead = tx.execute(_DEAD_LETTER, record).one_or_none()
    attempts = tx.execute(_ATTEMPTS, record).all()
    actions = tx.execute(_ACTIONS, {"id": dead.id, "limit": MAX_ACTIONS_SHOWN}).all() if dead else []
    return StoredHistory(
        tx.execute(_APPENDED, record).scalar_one_or_none(),
        FinalState(final.decided_at, RequestState(final.state), _code(final.code), final.sequence) if final else None,
        [StoredAttempt(number, at, error, _code(code)) for number, at, error, code in attempts],
        StoredDeadLetter(dead.id, dead.forwarded_at, dead.dlt_partition, dead.dlt_offset) if dead else None,
        [
            StoredAction(DeadLetterState(row.action), row.acted_by, row.acted_at, _state(row.state), _code(row.code))
            for row in reversed(actions)
        ],
    )


def read_notices(tx: Connection, key: RequestKey, decided_at: Collection[datetime]) -> list[StoredNotice]:
    """Return the notices that announce what was decided about the request at one of these times.

    A notice that has not been tried yet is left out.
    """
    asked = {**key._asdict(), "most": MAX_OFFSETS_PER_ENTRY, "decided_at": list(decided_at)}
    return [StoredNotice(*row) for row in tx.execute(_NOTICES, asked)] if decided_at else []


def _code(code: str | None) -> ReasonCode | None:
    return None if code is None else ReasonCode(code)


def _state(state: str | None) -> RequestState | None:
    return None if state is None else RequestState(state)
