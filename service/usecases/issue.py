"""Steps 4 and 5: decides a poll in offset order and writes all that follows from it in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, Engine

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.decide import decide
from service.domain.errors import Fenced
from service.domain.failures import Failure, FailureClass
from service.domain.record import Record
from service.domain.retry import ISSUE_RETRY_POLICY
from service.store import (
    checkpoints,
    coupons,
    dead_letters,
    engine,
    fault_injection,
    outbox,
    requests,
    retries,
    write_probe,
)
from service.usecases.batch_bisect import MAX_FAILURE_SECONDS, MAX_FAILURES_PER_TRANSACTION, Failures, write_bisecting
from service.usecases.write_plan import IssueResult, WritePlan, checkpoint_advances, offset_ranges


class Issuer:
    """Writes decisions; keeps nothing between polls but what it was built with."""

    def __init__(self, engine: Engine, log_id: int, *, notices: bool) -> None:
        self._engine = engine
        self._log_id = log_id
        self._notices = notices

    def issue(
        self,
        records: Sequence[Record],
        next_offsets: Mapping[int, int],
        *,
        on_writing: Callable[[], None] = lambda: None,
    ) -> IssueResult:
        """Decides the records of a poll, which stand in offset order within each partition.

        `positions` is the next offset that the database is believed to have, by partition. Records that fail by
        themselves are held or dead-lettered; after many of those it ends early, and what is returned tells how far it
        came. A system failure is raised, and so is Fenced when a partition is not where it is believed to be; then
        nothing has happened. Killed at any line before the commit: the same.

        `writing` is called when the decisions are made, and the database has to work and this thread to wait.
        """
        partitions = {record.raw.log_position.partition for record in records}
        with self._engine.begin() as tx:
            if fenced := checkpoints.lock_expected(
                tx, self._log_id, {partition: next_offsets[partition] for partition in partitions}
            ):
                raise Fenced(fenced)
            crash_points.reach(CrashPoint.ISSUER_LOCKED)
            poll = _Poll(tx, self._log_id, records, on_writing, notices=self._notices)
            decided = write_bisecting(
                records,
                poll.write,
                poll.give_way,
                poll.failing,
                failures_most=MAX_FAILURES_PER_TRANSACTION,
                seconds_most=MAX_FAILURE_SECONDS,
            )
            moves = checkpoint_advances(records[:decided], next_offsets)
            checkpoints.advance(tx, self._log_id, moves)
            outbox.insert(tx, self._log_id, poll.issued.outbox_kinds, offset_ranges(moves), poll.decided_at)
            crash_points.reach(CrashPoint.ISSUER_WRITTEN)
        crash_points.reach(CrashPoint.ISSUER_COMMITTED)
        poll.issued.record_count = decided
        poll.issued.next_offsets = {move.partition: move.next_offset for move in moves}
        return poll.issued


class _Poll:
    """A poll under way: its transaction, its moment, and its coupons, locked all at once and in id order."""

    def __init__(
        self, tx: Connection, log_id: int, records: Sequence[Record], writing: Callable[[], None], *, notices: bool
    ) -> None:
        self._tx = tx
        self._log_id = log_id
        self._writing = writing
        self._notices = notices
        self._coupons = coupons.lock(tx, {record.request.coupon_id for record in records if record.request})
        self.decided_at = engine.database_now(tx)
        self.issued = IssueResult()

    def write(self, records: Sequence[Record], failing: Failures) -> None:
        """Decides and writes records as one; raises what the database says, and then nothing of it stays.

        Requests that fail by themselves hold the seats that they are due.
        """
        with engine.savepoint(self._tx):
            self._store(self._plan(records, failing))

    def failing(self, records: Sequence[Record]) -> Failures:
        """Which of the requests cannot be issued though they are due a seat."""
        return write_probe.find_failing(self._tx, self._plan(records, {}).trials(self._log_id), self.decided_at)

    def give_way(self, record: Record, failure: Failure) -> None:
        """One request failed by itself: its seat is held for a retry, or it is dead, and the others go on."""
        request = record.request if failure.failure_class is FailureClass.RECORD else None
        plan = self._plan([record], {request.request_id: failure} if request else {})
        plan.fail(failure)
        self._store(plan)

    def _plan(self, records: Sequence[Record], failing: Failures) -> WritePlan:
        if self.issued.counts:  # an earlier segment of this poll has moved the counters
            self._coupons = coupons.get_many(self._tx, self._coupons)
        asked = [record.request for record in records if record.request]
        known = requests.prior_requests(self._tx, {(request.coupon_id, request.user_id) for request in asked})
        return WritePlan(records, self._coupons, decide(asked, self._coupons, known, failing), failing)

    def _store(self, plan: WritePlan) -> None:
        new = requests.insert_columns(plan.outcomes)
        self._writing()
        requests.insert(self._tx, self._log_id, new, self.decided_at)
        retries.insert(
            self._tx, self._log_id, plan.held, self.decided_at + timedelta(seconds=ISSUE_RETRY_POLICY.delay_seconds)
        )
        retries.insert_standby(self._tx, self._log_id, plan.standby())
        dead_letters.insert(self._tx, self._log_id, plan.dead)
        fault_injection.raise_injected(self._tx, plan.faults())
        plan.tell(self.issued, notices=self._notices)
