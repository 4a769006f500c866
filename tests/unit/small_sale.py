"""A small sale without a violation: one request failed once, one became dead and was replayed, two were on standby."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from demo.operator_api import Coupon, DeadLetter, Replay, ReplayOutcome
from demo.result import SaleResult, Snapshot
from demo.sale import FAILS_ALWAYS, FAILS_ONCE, IssuanceRequest
from demo.system_state import Pending, RequestRow, RequestStatus
from testkit.history import TimedAnswer
from testkit.webhook_receiver import WebhookReceiver

COUPON, FOREIGN_USER = 42, 9
NOTHING_PENDING = Pending(0, 0, 0, 0, 0)
_NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(
    user_id: int, offset: int, state: str, code: str | None, sequence: int | None, attempts: int, at: int
) -> RequestRow:
    """Build a row that was decided `at` seconds after noon."""
    decided_at = _NOON + timedelta(seconds=at)
    return RequestRow(f"r{user_id}", user_id, COUPON, offset, state, code, sequence, attempts, decided_at)


ROWS = [
    row(FOREIGN_USER, 0, "issued", None, 1, 1, at=0),
    row(2, 1, "issued", None, 3, 2, at=1),
    row(1, 2, "issued", None, 2, 1, at=0),
    row(3, 3, "dead", "exhausted", None, 3, at=3),
    row(4, 4, "issued", None, 4, 1, at=3),
    row(5, 5, "refused", "sold_out", None, 1, at=4),
]
DEAD_INDEX = 3
REPLAYED_ROW = row(3, 3, "issued", None, 5, 4, at=9)
DEAD_LETTERS = [
    DeadLetter(6, "new", "exhausted", 3, "r3", 3),
    *(DeadLetter(number, "new", "poison", None, None, 1) for number in (4, 3)),
]
REPLAY = Replay(
    sold_out=Coupon(COUPON, "4 seats", 4, 4, 0, 0),
    dry_run_sold_out=[ReplayOutcome(6, "r3", "refused", "sold_out")],
    raised=Coupon(COUPON, "4 seats", 5, 4, 0, 1),
    dry_run_raised=[ReplayOutcome(6, "r3", "issued", None)],
    replayed=ReplayOutcome(6, "r3", "issued", None),
)


def changed(rows: Sequence[RequestRow], index: int, **values: Any) -> list[RequestRow]:
    """Return the rows with other values in one of them."""
    return [*rows[:index], rows[index]._replace(**values), *rows[index + 1 :]]


def small_sale() -> SaleResult:
    """Return the result of the sale and of the replay."""
    receiver = WebhookReceiver()
    receiver.decisions.update((one.request_id, one.state) for one in (*ROWS, REPLAYED_ROW))
    replayed = msgspec.structs.replace(DEAD_LETTERS[0], state="replayed")
    return SaleResult(
        requests=[
            IssuanceRequest(1, 0),
            IssuanceRequest(2, 0, FAILS_ONCE),
            IssuanceRequest(3, 0, FAILS_ALWAYS),
            IssuanceRequest(4, 0),
            IssuanceRequest(5, 0),
        ],
        answers=[accepted(user_id) for user_id in (1, 2, 3, 4, 5)],
        statuses={
            ("r2", "retrying"): RequestStatus("r2", "retrying", 1),
            ("r4", "standby"): RequestStatus("r4", "standby", 0),
        },
        coupons=[REPLAY.sold_out],
        after_sale=Snapshot(NOTHING_PENDING, ROWS, DEAD_LETTERS),
        receiver=receiver,
        malformed=2,
        foreign_user=FOREIGN_USER,
        replay=REPLAY,
        after_replay=Snapshot(
            NOTHING_PENDING, changed(ROWS, DEAD_INDEX, **REPLAYED_ROW._asdict()), [replayed, *DEAD_LETTERS[1:]]
        ),
    )


def accepted(user_id: int) -> TimedAnswer:
    """Return the answer to an accepted request, sent half a second before noon."""
    return TimedAnswer(
        user_id,
        COUPON,
        "accepted",
        request_id=f"r{user_id}",
        status=202,
        sent_at=_NOON.timestamp() - 0.5,
        answered_at=_NOON.timestamp() - 0.4,
    )


def with_rows(result: SaleResult, rows: Sequence[RequestRow]) -> SaleResult:
    """Return the sale with other rows; the replay changes the same row as before."""
    after = [REPLAYED_ROW if one.request_id == REPLAYED_ROW.request_id else one for one in rows]
    assert result.after_replay is not None
    return replace(
        result,
        after_sale=result.after_sale._replace(rows=rows),
        after_replay=result.after_replay._replace(rows=after),
    )
