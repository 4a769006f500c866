"""The promises P1 to P6 as checks of the model, after every step and at the end."""

from collections import Counter
from collections.abc import Collection
from itertools import chain

from service.domain.coupon import CouponState
from service.domain.dead_letter import DeadLetterState
from service.domain.request import FINAL_STATES, LogPosition, ReasonCode, RequestState
from service.domain.retry import ISSUE_RETRY_POLICY
from service.verification.order import OrderChecker
from tests.unit.model.database import Database, Row, is_ours, pair_of
from tests.unit.model.system import SystemModel

_HAS_SEAT = (RequestState.ISSUED, RequestState.RETRYING)
_UNFINISHED = (RequestState.RETRYING, RequestState.STANDBY)


def check_counts(db: Database) -> None:
    """P1 to P3: no coupon over-issued, one live request per user, sequences without a gap, one row per request."""
    for coupon in map(db.coupon, db.values):
        assert coupon.remaining >= 0
        sequences = [row.sequence for row in db.rows_of(coupon.id) if row.sequence is not None]
        assert sorted(sequences) == list(range(1, coupon.issued + 1))
    live = Counter(pair_of(row.request) for row in db.rows.values() if row.is_live)
    request_ids = Counter(row.request.request_id for row in db.rows.values())
    assert {*live.values(), *request_ids.values()} <= {1}


def check_nothing_lost(model: SystemModel) -> None:
    """P4: each record is undecided, decided or a dead letter; each unfinished request will be tried again."""
    db = model.db
    decided = {row.request.request_id for row in db.rows.values()}
    undecided = {request.request_id for request in chain(*map(model.undecided, model.log))}
    assert model.accepted <= decided | undecided
    for partition, records in model.log.items():
        for record in records[: db.offsets[partition]]:
            assert (
                record.request.request_id in decided if record.request else record.raw.log_position in db.dead_letters
            )
    assert db.retries.keys() == {position for position, row in db.rows.items() if row.state in _UNFINISHED}
    dead = [position for position, row in db.rows.items() if row.state is RequestState.DEAD]
    assert all(db.dead_letters[position].state is not DeadLetterState.REPLAYED for position in dead)


def check_order(db: Database) -> None:
    """P3, P5: the verification's order checker finds no violation, at any time."""
    for coupon_id, versions in db.versions.items():
        checker = OrderChecker(versions).check(db.decided_requests(coupon_id))
        assert (checker.violations, checker.out_of_order) == (Counter(), 0)


def check_step(db: Database, before: Database, replayed: Collection[LogPosition]) -> None:
    """P3, P5: no offset moves back, only a replay changes final rows, codes are true, no standby is overtaken."""
    assert all(db.offsets[partition] >= offset for partition, offset in before.offsets.items())
    for position, row in db.rows.items():
        old = before.rows.get(position)
        if old != row:
            assert old is None or old.state not in FINAL_STATES or position in replayed
            _check_code(db, row, is_new=old is None, replayed=position in replayed)
        if row.state in _HAS_SEAT and (old is None or old.state not in _HAS_SEAT):
            earlier = [other for other in db.rows_of(row.request.coupon_id) if other.request.log_position < position]
            assert all(other.state is not RequestState.STANDBY for other in earlier)


def _check_code(db: Database, row: Row, *, is_new: bool, replayed: bool) -> None:
    """Check that the reason code is true at this time; a window is applied once: at the gate or at append time."""
    request = row.request
    coupon = db.coupons([request]).get(request.coupon_id)
    assert coupon or row.code in (ReasonCode.UNKNOWN_COUPON, ReasonCode.POISON)
    assert row.code is not ReasonCode.DUPLICATE or db.live([request])
    assert row.code is not ReasonCode.EXHAUSTED or row.attempts >= ISSUE_RETRY_POLICY.attempts
    assert row.code is not ReasonCode.SOLD_OUT or (coupon and coupon.remaining == coupon.held == 0)
    if is_ours(request.request_id) or replayed:
        assert row.code not in (ReasonCode.NOT_OPEN, ReasonCode.PAUSED)
    elif is_new and coupon and row.is_live:
        assert coupon.state(request.appended_at_ms) in (CouponState.OPEN, CouponState.SOLD_OUT)


def check_completed(model: SystemModel) -> None:
    """P4, P6: with no work left, all states are final, and the gate has at least as many free seats as remain."""
    db = model.db
    assert all(row.state in FINAL_STATES for row in db.rows.values())
    assert model.accepted <= {row.request.request_id for row in db.rows.values()}
    for coupon in map(db.coupon, model.gate.coupons):
        assert model.gate.free_seats(coupon.id) >= coupon.remaining
