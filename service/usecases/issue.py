"""Steps 4 and 5: decides a poll in offset order and writes all that follows from it in one transaction."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine

from service.domain.decide import decide
from service.domain.errors import Fenced
from service.domain.fates import Failure
from service.domain.record import Record
from service.domain.retry import ISSUING
from service.store import coupons, dead_letters, faults, handoffs, offsets, requests, retries
from service.usecases.halves import in_halves
from service.usecases.plan import Issued, Plan, moves_of


class Issuer:
    """Writes decisions; keeps nothing between polls but what it was built with."""

    def __init__(self, engine: Engine, log: int, *, notices: bool) -> None:
        self._engine = engine
        self._log = log
        self._notices = notices

    def issue(self, records: Sequence[Record], positions: Mapping[int, int]) -> Issued:
        """Decides the records of a poll, which stand in offset order within each partition.

        `positions` is the next offset that the database is believed to have, by partition. Records that fail by
        themselves are held or dead-lettered; a system failure is raised, and what was committed before it stays.
        Raises Fenced when a partition is not where it is believed to be; nothing of that write stays.
        """
        done = Issued(positions=dict(positions))
        in_halves(
            records, lambda some: self._write(some, done), lambda one, failure: self._give_way(one, failure, done)
        )
        return done

    def _write(self, records: Sequence[Record], done: Issued) -> None:
        """Any line may be the last one run: before the commit nothing has happened, after it everything has."""
        with self._engine.begin() as tx:
            plan = self._plan(tx, records, done.positions)
            self._store(tx, plan)
        plan.tell(done, notices=self._notices)

    def _give_way(self, record: Record, failure: Failure, done: Issued) -> None:
        """One request failed by itself: its seat is held for a retry, or it is dead, and the others go on."""
        with self._engine.begin() as tx:
            plan = self._plan(tx, [record], done.positions)
            plan.fail(failure)
            self._store(tx, plan)
        plan.tell(done, notices=self._notices)

    def _plan(self, tx: Connection, records: Sequence[Record], positions: Mapping[int, int]) -> Plan:
        moves = moves_of(records, positions)
        if fenced := offsets.advance(tx, self._log, moves):
            raise Fenced(fenced)
        asked = [record.request for record in records if record.request]
        locked = coupons.lock(tx, {request.coupon_id for request in asked})
        known = requests.known(tx, {(request.coupon_id, request.user_id) for request in asked})
        return Plan(records, moves, locked, decide(asked, locked, known), datetime.now(UTC))

    def _store(self, tx: Connection, plan: Plan) -> None:
        requests.insert(tx, self._log, plan.outcomes, plan.decided_at)
        retries.insert(tx, self._log, plan.held, plan.decided_at + timedelta(seconds=ISSUING.delay_seconds))
        dead_letters.insert(tx, self._log, plan.dead)
        handoffs.insert(tx, self._log, plan.kinds(notices=self._notices), plan.ranges, plan.decided_at)
        faults.raise_first(tx, plan.faults(), attempt=1)
