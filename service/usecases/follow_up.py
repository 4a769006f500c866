"""What remains to be done after a commit, and its way from the API and the commands to Celery.

Workers send Celery tasks themselves. The API and the commands do not load Celery: they put the follow-up into a short
list in Redis, and an issuer takes it from there and sends the tasks. A follow-up that is lost costs the time until the
sweep finds its rows.
"""

from dataclasses import dataclass, field

import msgspec

from service.domain.errors import Unavailable
from service.domain.request import LogPosition
from service.gate.gate_admin import GateAdmin
from service.log import get_logger
from service.log_events import LogEvent
from service.store.outbox import OutboxKind
from service.usecases.write_plan import HeldFailure

_log = get_logger(__name__)


@dataclass(slots=True)
class FollowUp:
    """Tasks for Celery that follow from a committed transaction."""

    #: requests that failed and are due later, by log_id and number of attempts made
    retries: dict[tuple[int, int], list[LogPosition]] = field(default_factory=dict)
    #: what the description of their retry shows
    held_failures: dict[LogPosition, HeldFailure] = field(default_factory=dict)
    outbox_kinds: set[OutboxKind] = field(default_factory=set)
    has_dead_letters: bool = False
    #: coupons with more decidable standby requests than one transaction takes
    coupons_with_standby: list[int] = field(default_factory=list)

    def hold(self, log_id: int, log_position: LogPosition, attempts_made: int, failure: HeldFailure) -> None:
        """Add a request that is held for a retry."""
        self.retries.setdefault((log_id, attempts_made), []).append(log_position)
        self.held_failures[log_position] = failure


_decoder = msgspec.msgpack.Decoder(FollowUp)


def publish(gate_admin: GateAdmin, follow_up: FollowUp) -> None:
    """Hand a follow-up to an issuer. Call it after the commit; without Redis the sweep does the work later."""
    if follow_up == FollowUp():
        return
    try:
        gate_admin.push_follow_up(msgspec.msgpack.encode(follow_up))
    except Unavailable as error:
        _log.info(LogEvent.MESSAGES_LOST, reason=str(error))


def receive(gate_admin: GateAdmin, wait_seconds: float) -> FollowUp | None:
    """Return the oldest follow-up, or None if none arrives in time. Raises Unavailable and msgspec.MsgspecError."""
    payload = gate_admin.pop_follow_up(wait_seconds)
    return None if payload is None else _decoder.decode(payload)
