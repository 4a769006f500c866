"""A dead letter as operators see it: found by filters, replayed or discarded, with what was done to it."""

from enum import StrEnum
from typing import NamedTuple

from service.domain.record import RawRecord
from service.domain.request import ReasonCode, Request, RequestState


class DeadLetterState(StrEnum):
    """What operators have done with a dead letter."""

    NEW = "new"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeadLetter(NamedTuple):
    """A dead letter; times are milliseconds since 1970 UTC."""

    id: int
    #: the log it comes from; None when another producer wrote it to the dead-letter topic
    log_id: int | None
    raw: RawRecord
    #: whose it is; None, all three, when it could not be read
    coupon_id: int | None
    user_id: int | None
    request_id: str | None
    code: ReasonCode
    #: all that were ever made to issue it
    attempts: int
    first_error: str
    last_error: str
    state: DeadLetterState
    dead_at_ms: int
    forwarded_at_ms: int | None

    @property
    def request(self) -> Request | None:
        """What it asked for, when it could be read."""
        if self.coupon_id is None or self.user_id is None or self.request_id is None:
            return None
        at_ms = self.raw.appended_at_ms
        return Request(
            self.raw.log_position, self.coupon_id, self.user_id, self.request_id, at_ms, at_ms, accepted=True
        )


class DeadLetterAction(NamedTuple):
    """One entry of the audit trail."""

    action: DeadLetterState
    #: through which door: api or cli
    via: str
    #: what the request became by a replay
    state: RequestState | None
    code: ReasonCode | None
    acted_at_ms: int


class DeadLetterFilter(NamedTuple):
    """Which dead letters are meant; None: any."""

    coupon_id: int | None = None
    code: ReasonCode | None = None
    state: DeadLetterState | None = None
