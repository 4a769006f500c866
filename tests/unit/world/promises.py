"""What must be true of the world after every step."""

from collections import Counter
from collections.abc import Collection
from itertools import chain

from service.domain.coupon import CouponState
from service.domain.dead_letter import DeadLetterState
from service.domain.request import FINAL_STATES, LogPosition, ReasonCode, RequestState
from service.domain.retry import ISSUE_RETRY_POLICY
from service.verification.order import OrderChecker
from tests.unit.world.database import Database, Row, is_ours, pair_of
from tests.unit.world.world import World

_SEATED = (RequestState.ISSUED, RequestState.RETRYING)
_KEPT = (RequestState.RETRYING, RequestState.STANDBY)


def counted(db: Database) -> None:
    """P1 to P3: never too many, never two, never a gap."""
    for coupon in map(db.coupon, db.values):
        assert coupon.remaining >= 0
        given = [row.sequence for row in db.of(coupon.id) if row.sequence is not None]
        assert sorted(given) == list(range(1, coupon.issued + 1))
    live = Counter(pair_of(row.request) for row in db.rows.values() if row.is_live)
    names = Counter(row.request.request_id for row in db.rows.values())
    assert {*live.values(), *names.values()} <= {1}


def kept(world: World) -> None:
    """P4: a record is ahead, decided or dead poison; what is held will be tried, and what is dead has its letter."""
    db = world.db
    decided = {row.request.request_id for row in db.rows.values()}
    ahead = {request.request_id for request in chain(*map(world.undecided, world.log))}
    assert world.receipts <= decided | ahead
    for partition, records in world.log.items():
        for record in records[: db.offsets[partition]]:
            assert record.request.request_id in decided if record.request else record.raw.log_position in db.letters
    assert db.retries.keys() == {at for at, row in db.rows.items() if row.state in _KEPT}
    dead = [at for at, row in db.rows.items() if row.state is RequestState.DEAD]
    assert all(db.letters[at].state is not DeadLetterState.REPLAYED for at in dead)


def ruled(db: Database) -> None:
    """P3, P5: the proof's own judge finds nothing, at any moment."""
    for coupon_id, versions in db.versions.items():
        judge = OrderChecker(versions).check(db.lines(coupon_id))
        assert (judge.violations, judge.out_of_order) == (Counter(), 0)


def stepped(db: Database, before: Database, replayed: Collection[LogPosition]) -> None:
    """P3, P5: a step goes forward, leaves final rows alone but for a replay, answers truly and passes nobody over."""
    assert all(db.offsets[partition] >= at for partition, at in before.offsets.items())
    for at, row in db.rows.items():
        old = before.rows.get(at)
        if old != row:
            assert old is None or old.state not in FINAL_STATES or at in replayed
            _answered(db, row, fresh=old is None, replayed=at in replayed)
        if row.state in _SEATED and (old is None or old.state not in _SEATED):
            line = db.of(row.request.coupon_id)
            assert all(other.state is not RequestState.STANDBY for other in line if other.request.log_position < at)


def _answered(db: Database, row: Row, *, fresh: bool, replayed: bool) -> None:
    """What was said is true as it is said; a window is judged once: at the gate, or when a record was appended."""
    request = row.request
    coupon = db.coupons([request]).get(request.coupon_id)
    assert coupon or row.code in (ReasonCode.UNKNOWN_COUPON, ReasonCode.POISON)
    assert row.code is not ReasonCode.DUPLICATE or db.live([request])
    assert row.code is not ReasonCode.EXHAUSTED or row.attempts >= ISSUE_RETRY_POLICY.attempts
    assert row.code is not ReasonCode.SOLD_OUT or (coupon and coupon.remaining == coupon.held == 0)
    if is_ours(request.request_id) or replayed:
        assert row.code not in (ReasonCode.NOT_OPEN, ReasonCode.PAUSED)
    elif fresh and coupon and row.is_live:
        assert coupon.state(request.appended_at_ms) in (CouponState.OPEN, CouponState.SOLD_OUT)


def rested(world: World) -> None:
    """P4, P6: once nothing is left to do, all answers are final, and who knocks finds the seats that are left."""
    db = world.db
    assert all(row.state in FINAL_STATES for row in db.rows.values())
    assert world.receipts <= {row.request.request_id for row in db.rows.values()}
    for coupon in map(db.coupon, world.gate.told):
        assert world.gate.room(coupon.id) >= coupon.remaining
