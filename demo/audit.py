"""The demo's own checks: what it made fail, and what the webhook's receiver was told, against the database."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from demo.coupons import Coupon
from demo.history import Call, Outcome
from demo.proof import Check
from demo.receiver import Receiver
from demo.sale import FAILS_ONCE, FAILS_THRICE, Ask
from demo.view import Pending, Row

#: what a request that was made to fail ends as, after how many attempts
ENDS = {FAILS_ONCE: ("issued", 2), FAILS_THRICE: ("dead", 3)}


@dataclass(frozen=True)
class Findings:
    """All that is known once the sale is over."""

    asks: Sequence[Ask]
    calls: Sequence[Call]
    coupons: Sequence[Coupon]
    pending: Pending
    rows: Sequence[Row]
    dead_letters: Counter[str]
    receiver: Receiver
    #: malformed records that were produced, and the user for whom a sound one was
    malformed: int
    foreign_user: int

    @cached_property
    def accepted(self) -> dict[str, Call]:
        """The calls that got a receipt, by request id; the first one of each."""
        return {call.request_id or "": call for call in reversed(self.calls) if call.outcome is Outcome.ACCEPTED}

    @cached_property
    def faults(self) -> dict[int, str]:
        """What was made to fail, by user."""
        return {ask.user_id: ask.fault for ask in self.asks if ask.fault}


def checks(found: Findings) -> list[Check]:
    """Every check."""
    return [_final(found), _notified(found), _failed_as_told(found), _dead_letters(found), _foreign(found)]


def _final(found: Findings) -> Check:
    without_row = len(found.accepted.keys() - {row.request_id for row in found.rows})
    numbers = {"accepted": len(found.accepted), "without_row": without_row, **found.pending._asdict()}
    return Check("demo", "all accepted requests are final", not (without_row or any(found.pending)), numbers)


def _notified(found: Findings) -> Check:
    told, due = found.receiver.told, {(row.request_id, row.state) for row in found.rows if row.decided_at}
    wrong = {
        "not_told": len(due - told.keys()),
        "told_otherwise": len(told.keys() - due),
        "told_twice": sum(1 for times in told.values() if times > 1),
        "forged": found.receiver.forged,
    }
    return Check("demo", "each was notified once", not any(wrong.values()), {"final": len(due)} | wrong)


def _failed_as_told(found: Findings) -> Check:
    asked = {name: ENDS[fault] for name, call in found.accepted.items() if (fault := found.faults.get(call.user_id))}
    ended = {row.request_id: (row.state, row.attempts) for row in found.rows if row.attempts > 1 or row.state == "dead"}
    as_told = len(asked.items() & ended.items())
    ok = as_told == len(found.faults) == len(ended)
    numbers = {"made_to_fail": len(found.faults), "failed": len(ended), "as_told": as_told}
    return Check("demo", "what was made to fail did, nothing else", ok, numbers)


def _dead_letters(found: Findings) -> Check:
    exhausted = sum(1 for fault in found.faults.values() if fault == FAILS_THRICE)
    due = Counter(poison=found.malformed, exhausted=exhausted)
    return Check("demo", "each is a dead letter, nothing else", found.dead_letters == due, dict(found.dead_letters))


def _foreign(found: Findings) -> Check:
    issued = sum(1 for row in found.rows if row.user_id == found.foreign_user and row.state == "issued")
    return Check("demo", "the Spring producer's record is issued", issued == 1, {"issued": issued})
