"""What service/usecases/issue.py and change.py do to the database, in their order and with the same pure functions."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from service.domain.change import apply_change
from service.domain.decide import decide
from service.domain.errors import Fenced
from service.domain.failures import Failure
from service.domain.record import Record
from service.usecases.batch_bisect import Failures, write_bisecting
from service.usecases.write_plan import WritePlan, checkpoint_advances
from tests.unit.world.database import LOG, Database, version
from tests.unit.world.trouble import Troubles

#: few, so that a poll that is cut short is tried often
_FAILURES_AT_ONCE = 2


def issue(db: Database, records: Sequence[Record], positions: Mapping[int, int], troubles: Troubles) -> dict[int, int]:
    """Decides a poll and gives the next offsets; when it raises Fenced or ConnectionError, nothing has happened."""
    with db.transaction():
        if fenced := db.lock(
            {record.raw.log_position.partition: positions[record.raw.log_position.partition] for record in records}
        ):
            raise Fenced(fenced)
        write, failing = partial(_write, db, troubles), partial(_failing, db, troubles)
        decided = write_bisecting(records, write, partial(_give_way, db), failing, failures_most=_FAILURES_AT_ONCE)
        moves = checkpoint_advances(records[:decided], positions)
        db.advance(moves)
    return {move.partition: move.next_offset for move in moves}


def _plan(db: Database, records: Sequence[Record], failing: Failures) -> WritePlan:
    asked = [record.request for record in records if record.request]
    locked = db.coupons(asked)
    return WritePlan(records, locked, decide(asked, locked, db.known(asked), failing), failing)


def _write(db: Database, troubles: Troubles, records: Sequence[Record], failing: Failures) -> None:
    with db.transaction():
        plan = _plan(db, records, failing)
        _store(db, plan)
        troubles.strike(plan.outcomes)


def _failing(db: Database, troubles: Troubles, records: Sequence[Record]) -> Failures:
    return troubles.tell(trial.outcome for trial in _plan(db, records, {}).trials(LOG))


def _give_way(db: Database, record: Record, failure: Failure) -> None:
    plan = _plan(db, [record], {record.request.request_id: failure} if record.request else {})
    plan.fail(failure)
    _store(db, plan)


def _store(db: Database, plan: WritePlan) -> None:
    db.write(plan.outcomes)
    db.retries |= {raw.log_position: 1 for raw, _ in plan.held} | {raw.log_position: 0 for raw in plan.standby()}
    for dead in plan.dead:
        db.bury(dead.raw.log_position, dead.request)


def change(db: Database, coupon_id: int, partition: int, values: dict[str, Any]) -> None:
    """Stores new values and from where they count, without what follows after the commit; raises Conflict."""
    coupon = db.coupon(coupon_id)
    new = apply_change(coupon, values)
    if new != coupon:
        db.values[coupon_id] = new._replace(issued=0, held=0, standby=0)
        before = db.versions[coupon_id]
        db.versions[coupon_id] += (version(new, (LOG, db.offsets[partition]), len(before)),)
