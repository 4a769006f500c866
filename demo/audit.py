"""The demo's own checks: what it made fail, and what the webhook's receiver was told, against the database."""

from collections import Counter

from demo.findings import Findings, Snapshot
from demo.proof import Check
from demo.sale import FAILS_ONCE, FAILS_THRICE

#: what a request that was made to fail ends as, after how many attempts
ENDS = {FAILS_ONCE: ("issued", 2), FAILS_THRICE: ("dead", 3)}


def checks(found: Findings) -> list[Check]:
    """Every check."""
    again = [_final("all are final again after the replay", found, found.after)] if found.after else []
    return [
        _final("all accepted requests are final", found, found.sale),
        *again,
        _notified(found),
        _failed_as_told(found),
        _dead_letters(found),
        _foreign(found),
    ]


def _final(what: str, found: Findings, then: Snapshot) -> Check:
    without_row = len(found.accepted.keys() - {row.request_id for row in then.rows})
    numbers = {"accepted": len(found.accepted), "without_row": without_row, **then.pending._asdict()}
    return Check("demo", what, not (without_row or any(then.pending)), numbers)


def _notified(found: Findings) -> Check:
    """What a replay changes is told anew, so it is due as it was and as it is."""
    told, rows = found.receiver.told, [*found.sale.rows, *found.end.rows]
    due = {(row.request_id, row.state) for row in rows if row.decided_at}
    wrong = {
        "not_told": len(due - told.keys()),
        "told_otherwise": len(told.keys() - due),
        "told_twice": sum(1 for times in told.values() if times > 1),
        "forged": found.receiver.forged,
    }
    return Check("demo", "each decision was told once", not any(wrong.values()), {"decisions": len(due)} | wrong)


def _failed_as_told(found: Findings) -> Check:
    rows = found.sale.rows
    asked = {name: ENDS[fault] for name, call in found.accepted.items() if (fault := found.faults.get(call.user_id))}
    ended = {row.request_id: (row.state, row.attempts) for row in rows if row.attempts > 1 or row.state == "dead"}
    as_told = len(asked.items() & ended.items())
    ok = as_told == len(found.faults) == len(ended)
    numbers = {"made_to_fail": len(found.faults), "failed": len(ended), "as_told": as_told}
    return Check("demo", "what was made to fail did, nothing else", ok, numbers)


def _dead_letters(found: Findings) -> Check:
    """Nothing but what was malformed and what failed thrice; the operator has brought back one of these."""
    exhausted = sum(1 for fault in found.faults.values() if fault == FAILS_THRICE)
    back = min(1, exhausted)
    due = Counter({("poison", "new"): found.malformed, ("exhausted", "new"): exhausted - back})
    due["exhausted", "replayed"] = back
    letters = Counter((letter.code, letter.state) for letter in found.end.letters)
    numbers = {f"{code}_{state}": number for (code, state), number in sorted(letters.items())}
    return Check("demo", "each is a dead letter, nothing else", letters == due, numbers)


def _foreign(found: Findings) -> Check:
    rows = found.sale.rows
    issued = sum(1 for row in rows if row.user_id == found.foreign_user and row.state == "issued")
    return Check("demo", "the Spring producer's record is issued", issued == 1, {"issued": issued})
