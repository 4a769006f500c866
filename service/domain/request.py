"""A request for a coupon and the states it passes through."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class RequestState(StrEnum):
    """Where a request stands; only `queued` has no row in the database."""

    QUEUED = "queued"
    RETRYING = "retrying"
    STANDBY = "standby"
    ISSUED = "issued"
    REFUSED = "refused"
    DEAD = "dead"


#: states in which a request occupies its user's one place with a coupon
LIVE_STATES = (RequestState.ISSUED, RequestState.RETRYING, RequestState.STANDBY)
#: states that are told as a notice and do not change any more
FINAL_STATES = (RequestState.ISSUED, RequestState.REFUSED, RequestState.DEAD)


class ReasonCode(StrEnum):
    """Why a request was refused or is dead."""

    UNKNOWN_COUPON = "unknown_coupon"
    NOT_OPEN = "not_open"
    CLOSED = "closed"
    PAUSED = "paused"
    DUPLICATE = "duplicate"
    SOLD_OUT = "sold_out"
    POISON = "poison"
    EXHAUSTED = "exhausted"


class LogPosition(NamedTuple):
    """Where a record lies in the log of requests: its rank within its partition is its offset."""

    partition: int
    offset: int


def records_ahead(offset: int | None, next_offset: int | None) -> int | None:
    """The position in line: records of the partition yet to be decided before this one; None where not known."""
    return None if offset is None or next_offset is None else max(0, offset - next_offset)


class Request(NamedTuple):
    """What one record of the log asks for; times are milliseconds since 1970 UTC."""

    log_position: LogPosition
    coupon_id: int
    user_id: int
    request_id: str
    requested_at_ms: int
    #: the broker's clock when the record reached the log
    appended_at_ms: int
    #: it carries a request id of ours, so its window was judged at the gate
    accepted: bool


@dataclass(slots=True)
class Decision:
    """What is told of a decided request; the fields are those of a notice, in its words and order."""

    request_id: str
    coupon_id: int
    user_id: int
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    decided_at: datetime
