"""A dead letter as operators see it, and the actions on it."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from service.domain.record import RawRecord
from service.domain.request import LogPosition, ReasonCode, Request, RequestState


class DeadLetterState(StrEnum):
    """What operators have done with a dead letter."""

    NEW = "new"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


class DeadLetterCode(StrEnum):
    """Why there is a dead letter: poison (not decodable, or the decision could not be written) or no attempts left."""

    POISON = ReasonCode.POISON.value
    EXHAUSTED = ReasonCode.EXHAUSTED.value


class DeadLetterSummary(NamedTuple):
    """A dead letter without the bytes of its record; times are milliseconds since 1970 UTC."""

    id: int
    #: the log of its record; None when another producer wrote it to the dead-letter topic
    log_id: int | None
    log_position: LogPosition
    appended_at_ms: int
    #: all three are None when the record could not be decoded
    coupon_id: int | None
    user_id: int | None
    request_id: str | None
    code: ReasonCode
    #: all attempts ever made to issue it
    attempts: int
    #: in a list both errors are cut off
    first_error: str
    last_error: str
    state: DeadLetterState
    dead_at_ms: int
    forwarded_at_ms: int | None


class DeadLetter(NamedTuple):
    """A dead letter with its record."""

    summary: DeadLetterSummary
    raw: RawRecord

    @property
    def request(self) -> Request | None:
        """The request, if the record could be decoded.

        The dead letter does not store the time that the record names: `requested_at_ms` is its append time. `accepted`
        is always True, because a replay does not check the window again.
        """
        one = self.summary
        if one.coupon_id is None or one.user_id is None or one.request_id is None:
            return None
        at_ms = one.appended_at_ms
        return Request(one.log_position, one.coupon_id, one.user_id, one.request_id, at_ms, at_ms, accepted=True)


class DeadLetterAction(NamedTuple):
    """One entry of the audit trail."""

    action: DeadLetterState
    #: an API key, or a user of the commands
    acted_by: str
    #: the request's state after a replay
    state: RequestState | None
    code: ReasonCode | None
    acted_at_ms: int


class DeadLetterFilter(NamedTuple):
    """Which dead letters an operation covers; None covers any."""

    coupon_id: int | None = None
    code: DeadLetterCode | None = None
    state: DeadLetterState | None = None
    ids: Sequence[int] | None = None
