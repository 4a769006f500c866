"""All that the demo knows in the end: what it asked for and was told, and what the system says of itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from demo.coupons import Coupon
from demo.desk import Letter, Replay
from demo.history import Call, Outcome
from demo.pages import Pages
from demo.receiver import Receiver
from demo.sale import Ask
from demo.view import Pending, Row


class Snapshot(NamedTuple):
    """What the system says when everything should be final."""

    pending: Pending
    rows: Sequence[Row]
    letters: Sequence[Letter]


@dataclass(frozen=True)
class Findings:
    """What is known of a sale."""

    asks: Sequence[Ask]
    calls: Sequence[Call]
    pages: Pages
    coupons: Sequence[Coupon]
    sale: Snapshot
    receiver: Receiver
    #: malformed records that were produced, and the user for whom a sound one was
    malformed: int
    foreign_user: int
    #: what the operator did after the sale, and what the system says then; None: nothing
    replay: Replay | None = None
    after: Snapshot | None = None

    @property
    def end(self) -> Snapshot:
        """What the system says at last."""
        return self.after or self.sale

    @cached_property
    def accepted(self) -> dict[str, Call]:
        """The calls that got a receipt, by request id; the first one of each."""
        return {call.request_id or "": call for call in reversed(self.calls) if call.outcome is Outcome.ACCEPTED}

    @cached_property
    def faults(self) -> dict[int, str]:
        """What was made to fail, by user."""
        return {ask.user_id: ask.fault for ask in self.asks if ask.fault}
