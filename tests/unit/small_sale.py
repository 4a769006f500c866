"""A small sale in which all went well: one failed once, one died and was brought back, two were on standby."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from demo.coupons import Coupon
from demo.desk import Letter, Replay, Replayed
from demo.findings import Findings, Snapshot
from demo.history import Call, Outcome
from demo.pages import Page
from demo.receiver import Receiver
from demo.sale import FAILS_ONCE, FAILS_THRICE, Ask
from demo.view import Pending, Row

COUPON, FOREIGN_USER = 42, 9
NOTHING = Pending(0, 0, 0, 0, 0)
_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(user_id: int, offset: int, state: str, code: str | None, sequence: int | None, attempts: int, at: int) -> Row:
    """A row that was decided so many seconds after noon."""
    decided_at = _NOON + timedelta(seconds=at)
    return Row(f"r{user_id}", user_id, COUPON, offset, state, code, sequence, attempts, decided_at)


ROWS = [
    row(FOREIGN_USER, 0, "issued", None, 1, 1, at=0),
    row(2, 1, "issued", None, 3, 2, at=1),
    row(1, 2, "issued", None, 2, 1, at=0),
    row(3, 3, "dead", "exhausted", None, 3, at=3),
    row(4, 4, "issued", None, 4, 1, at=3),
    row(5, 5, "refused", "sold_out", None, 1, at=4),
]
DEAD = 3
BACK = row(3, 3, "issued", None, 5, 4, at=9)
LETTERS = [Letter(6, "new", "exhausted", 3, "r3", 3), *(Letter(at, "new", "poison", None, None, 1) for at in (4, 3))]
REPLAY = Replay(
    sold_out=Coupon(COUPON, "4 to give away", 4, 4, 0, 0),
    refused=[Replayed(6, "r3", "refused", "sold_out")],
    raised=Coupon(COUPON, "4 to give away", 5, 4, 0, 1),
    rehearsed=[Replayed(6, "r3", "issued", None)],
    done=Replayed(6, "r3", "issued", None),
)


def changed(rows: Sequence[Row], at: int, **values: Any) -> list[Row]:
    """The rows, one of them with other values."""
    return [*rows[:at], rows[at]._replace(**values), *rows[at + 1 :]]


def held() -> Findings:
    """What is known of the sale, the replay included."""
    receiver = Receiver()
    receiver.told.update((one.request_id, one.state) for one in (*ROWS, BACK))
    back = LETTERS[0]
    replayed = Letter(back.id, "replayed", back.code, back.user_id, back.request_id, back.attempts)
    return Findings(
        asks=[Ask(1, 0), Ask(2, 0, FAILS_ONCE), Ask(3, 0, FAILS_THRICE), Ask(4, 0), Ask(5, 0)],
        calls=[call(user_id) for user_id in (1, 2, 3, 4, 5)],
        pages={("r2", "retrying"): Page("r2", "retrying", 1), ("r4", "standby"): Page("r4", "standby", 0)},
        coupons=[REPLAY.sold_out],
        sale=Snapshot(NOTHING, ROWS, LETTERS),
        receiver=receiver,
        malformed=2,
        foreign_user=FOREIGN_USER,
        replay=REPLAY,
        after=Snapshot(NOTHING, changed(ROWS, DEAD, **BACK._asdict()), [replayed, *LETTERS[1:]]),
    )


def call(user_id: int) -> Call:
    """A call that got a receipt."""
    return Call("issue", user_id, COUPON, 1.0, 2.0, 202, Outcome.ACCEPTED, None, f"r{user_id}")


def with_rows(found: Findings, rows: Sequence[Row]) -> Findings:
    """The sale with other rows; what the replay changed is the same."""
    after = [BACK if one.request_id == BACK.request_id else one for one in rows]
    assert found.after is not None
    return replace(found, sale=found.sale._replace(rows=rows), after=found.after._replace(rows=after))
