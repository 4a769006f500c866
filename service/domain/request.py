"""A request for a coupon and the states it passes through."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class RequestState(StrEnum):
    """The state of a request; only `queued` has no row in the database."""

    QUEUED = "queued"
    RETRYING = "retrying"
    STANDBY = "standby"
    ISSUED = "issued"
    REFUSED = "refused"
    DEAD = "dead"


#: states that exclude another request of the same user for the coupon
LIVE_STATES = (RequestState.ISSUED, RequestState.RETRYING, RequestState.STANDBY)
#: states that are final and are delivered as a notice
FINAL_STATES = (RequestState.ISSUED, RequestState.REFUSED, RequestState.DEAD)


class ReasonCode(StrEnum):
    """Why a request is refused or dead."""

    UNKNOWN_COUPON = "unknown_coupon"
    NOT_OPEN = "not_open"
    CLOSED = "closed"
    PAUSED = "paused"
    DUPLICATE = "duplicate"
    SOLD_OUT = "sold_out"
    POISON = "poison"
    EXHAUSTED = "exhausted"
    #: the record carries no request id of this service, and FOREIGN_RECORDS is `refuse`
    FOREIGN = "foreign"
    #: the record was deleted before it was decided
    LOST = "lost"


class LogPosition(NamedTuple):
    """The partition and offset of a record; within a partition the offset is the order of decision."""

    partition: int
    offset: int


class ListPosition(NamedTuple):
    """Where a request is in the list of its user's requests, which is in descending order of this: the newest first."""

    requested_at_ms: int
    log_id: int
    partition: int
    offset: int


def records_ahead(offset: int | None, next_offset: int | None) -> int | None:
    """Return how many records of the partition are decided before this one, or None if that is not known."""
    return None if offset is None or next_offset is None else max(0, offset - next_offset)


class Request(NamedTuple):
    """A decoded request; times are milliseconds since 1970 UTC."""

    log_position: LogPosition
    coupon_id: int
    user_id: int
    request_id: str
    requested_at_ms: int
    #: the broker's clock when the record was appended
    appended_at_ms: int
    #: it carries a minted request id of this service, so the gate has checked its window; its caller may have received
    #: no answer
    accepted: bool


@dataclass(slots=True)
class Decision:
    """The final decision about a request. A notice carries these fields in this order."""

    request_id: str
    coupon_id: int
    user_id: int
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    decided_at: datetime
