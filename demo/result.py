"""Result of the demo: what was requested and answered, and the state of the system afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from demo.operator_api import Coupon, DeadLetter, Replay
from demo.sale import IssuanceRequest
from demo.system_state import ObservedStatuses, Pending, RequestRow
from testkit.history import TimedAnswer
from testkit.webhook_receiver import WebhookReceiver


class Snapshot(NamedTuple):
    """State of the system at a moment when everything should be final."""

    pending: Pending
    rows: Sequence[RequestRow]
    dead_letters: Sequence[DeadLetter]


@dataclass(frozen=True)
class SaleResult:
    """Everything that is recorded of a sale."""

    requests: Sequence[IssuanceRequest]
    answers: Sequence[TimedAnswer]
    statuses: ObservedStatuses
    coupons: Sequence[Coupon]
    after_sale: Snapshot
    receiver: WebhookReceiver
    #: malformed records that were produced, and the user of the valid foreign record
    malformed: int
    foreign_user: int
    #: the operator's replay after the sale, and the state after it; None: no replay
    replay: Replay | None = None
    after_replay: Snapshot | None = None

    @property
    def final(self) -> Snapshot:
        """State at the end of the demo."""
        return self.after_replay or self.after_sale

    @cached_property
    def accepted(self) -> Mapping[str, TimedAnswer]:
        """First accepted answer of each request, by request id."""
        return {answer.request_id or "": answer for answer in reversed(self.answers) if answer.outcome == "accepted"}

    @cached_property
    def faults(self) -> Mapping[int, str]:
        """Injected faults by user."""
        return {request.user_id: request.fault for request in self.requests if request.fault}

    @cached_property
    def waits(self) -> Mapping[str, float]:
        """Seconds from sending an accepted request until its decision in the sale was committed, by request id."""
        return {
            row.request_id: row.decided_at.timestamp() - answer.sent_at
            for row in self.after_sale.rows
            if row.decided_at and (answer := self.accepted.get(row.request_id))
        }
