"""Model of service/usecases/issue.py and coupons.py: the same order of effects, the same pure functions."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from service.domain.coupon import apply_change
from service.domain.decide import decide
from service.domain.errors import Fenced
from service.domain.failures import Failure
from service.domain.record import Record
from service.usecases.batch_bisect import Failures, write_bisecting
from service.usecases.write_plan import WritePlan, checkpoint_advances
from tests.unit.model.database import LOG_ID, Database, coupon_version
from tests.unit.model.write_failures import InjectedFailures

#: small, so that a batch is often cut short
_MAX_FAILURES = 2


def issue(
    db: Database, records: Sequence[Record], positions: Mapping[int, int], failures: InjectedFailures
) -> dict[int, int]:
    """Decide a batch and return the next offsets by partition.

    Raises Fenced if another consumer has advanced a partition, ConnectionError if the database fails; both roll back.
    """
    with db.transaction():
        partitions = {record.raw.log_position.partition for record in records}
        if fenced := db.fenced({partition: positions[partition] for partition in partitions}):
            raise Fenced(fenced)
        decided = write_bisecting(
            records,
            partial(_write, db, failures),
            partial(_write_failed, db),
            partial(_probe, db, failures),
            max_failures=_MAX_FAILURES,
        )
        advances = checkpoint_advances(records[:decided], positions)
        db.advance(advances)
    return {advance.partition: advance.next_offset for advance in advances}


def _plan(db: Database, records: Sequence[Record], failed: Failures) -> WritePlan:
    requests = [record.request for record in records if record.request]
    coupons = db.coupons(requests)
    outcomes = decide(requests, coupons, db.prior_requests(requests), failed)
    return WritePlan(records, coupons, outcomes, failed)


def _write(db: Database, failures: InjectedFailures, records: Sequence[Record], failed: Failures) -> None:
    with db.transaction():
        plan = _plan(db, records, failed)
        _store(db, plan)
        failures.raise_for(plan.outcomes)


def _probe(db: Database, failures: InjectedFailures, records: Sequence[Record]) -> Failures:
    return failures.probe(write.outcome for write in _plan(db, records, {}).probed_writes(LOG_ID))


def _write_failed(db: Database, record: Record, failure: Failure) -> None:
    plan = _plan(db, [record], {record.request.request_id: failure} if record.request else {})
    plan.kill_unless_held(failure)
    _store(db, plan)


def _store(db: Database, plan: WritePlan) -> None:
    db.write(plan.outcomes)
    db.retries |= {raw.log_position: 1 for raw, _ in plan.held} | {raw.log_position: 0 for raw in plan.standby()}
    for dead in plan.dead:
        db.add_dead_letter(dead.raw.log_position, dead.request)


def change(db: Database, coupon_id: int, partition: int, values: dict[str, Any]) -> None:
    """Store a coupon's new values and the offset from which they apply, and nothing that follows after the commit.

    Raises Conflict if the values do not fit the coupon.
    """
    coupon = db.coupon(coupon_id)
    new = apply_change(coupon, values)
    if new != coupon:
        db.values[coupon_id] = new._replace(issued=0, held=0, standby=0)
        number = len(db.versions[coupon_id])
        db.versions[coupon_id] += (coupon_version(new, (LOG_ID, db.offsets[partition]), number),)
