"""What must be true of the world after every step."""

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import chain

from service.domain.letter import LetterState
from service.domain.order import Judge
from service.domain.request import FINAL, Code, Place, State
from tests.unit.world.database import Database, Row, is_ours, pair_of
from tests.unit.world.world import World

_JUDGED_AT_THE_GATE = (Code.NOT_OPEN, Code.PAUSED, Code.UNKNOWN_COUPON)
_SEATED = (State.ISSUED, State.RETRYING)


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
            assert record.request.request_id in decided if record.request else record.raw.place in db.letters
    assert db.retries.keys() == {at for at, row in db.rows.items() if row.state in (State.RETRYING, State.STANDBY)}
    dead = [at for at, row in db.rows.items() if row.state is State.DEAD]
    assert all(db.letters[at].state is not LetterState.REPLAYED for at in dead)


def ruled(db: Database) -> None:
    """P3, P5: the proof's own judge finds nothing, at any moment."""
    for coupon_id, versions in db.versions.items():
        judge = Judge(versions).read(db.lines(coupon_id))
        assert (judge.found, judge.out_of_order) == (Counter(), 0)


def stepped(db: Database, before: Mapping[Place, Row], replayed: Collection[Place]) -> None:
    """P3, P5: what one step may do to rows: nothing to final ones but by a replay, and nobody is passed over."""
    for at, row in db.rows.items():
        old = before.get(at)
        if old == row:
            continue
        assert old is None or old.state not in FINAL or at in replayed
        if row.code is Code.SOLD_OUT:
            coupon = db.coupon(row.request.coupon_id)
            assert (coupon.remaining, coupon.held) == (0, 0)
        if row.state in _SEATED and (old is None or old.state not in _SEATED):
            line = db.of(row.request.coupon_id)
            assert all(other.state is not State.STANDBY for other in line if other.request.place < at)
        assert row.code not in _JUDGED_AT_THE_GATE or not is_ours(row.request.request_id)


def rested(world: World) -> None:
    """P4, P6: once nothing is left to do, all answers are final, and who knocks finds the seats that are left."""
    db = world.db
    assert all(row.state in FINAL for row in db.rows.values())
    assert world.receipts <= {row.request.request_id for row in db.rows.values()}
    for coupon in map(db.coupon, world.gate.told):
        assert world.gate.room(coupon.id) >= coupon.remaining
