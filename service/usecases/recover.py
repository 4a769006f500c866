"""Retries held requests, stores a dead letter for each one without attempts left, and decides standby requests."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from sqlalchemy import Connection, Engine

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.coupon import Coupon
from service.domain.decide import Outcome, StandbyAction, issue_seated, next_standby_action
from service.domain.failures import Failure
from service.domain.request import LogPosition, ReasonCode, RequestState
from service.domain.retry import ISSUE_RETRY_POLICY
from service.store import coupons, dead_letters, failed_attempts, retries, write_probe
from service.store.dead_letters import NewDeadLetter
from service.store.engine import in_transaction, savepoint
from service.store.failed_attempts import FailedAttempt
from service.store.retries import WaitingRequest
from service.store.write_probe import ProbedWrite
from service.stream.codec import RecordReader
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION, Failures, probe_then_write, write_bisecting
from service.usecases.decision_writer import DecisionWriter
from service.usecases.follow_up import FollowUp
from service.usecases.write_plan import HeldFailure

#: standby requests that one transaction promotes or refuses
STANDBY_BATCH_SIZE = 1_000
#: standby requests promoted in one step, so that the failures of a step are bounded too
_PROMOTION_BATCH_SIZE = 50


class Recoverer:
    """Decides held and standby requests under the coupon locks, as the issuer does."""

    def __init__(self, engine: Engine, reader: RecordReader, *, notices: bool) -> None:
        self._engine = engine
        self._reader = reader
        self._notices = notices

    def retry(self, log_id: int, log_positions: Sequence[LogPosition], attempts_made: int) -> FollowUp:
        """Make one more attempt for those requests that have had exactly `attempts_made`; skip the others.

        A request that succeeds is issued. One that fails by itself is due again, or dead after its last attempt; then
        its seat goes to the lowest standby offset. A system failure is raised: no attempt is counted, nothing changes.
        """
        with self._engine.begin() as tx:
            held = retries.lock_for_attempt(tx, log_id, sorted(log_positions), attempts_made)
            crash_points.reach(CrashPoint.RETRY_TAKEN)
            coupon_ids = coupons.lock(tx, {one.request.coupon_id for one in held}).keys()
            transaction = RetryTransaction(tx, self._reader, notices=self._notices)
            transaction.retry(log_id, held)
            transaction.decide_standby(coupon_ids)
            follow_up = transaction.finish()
            crash_points.reach(CrashPoint.RETRY_WRITTEN)
        crash_points.reach(CrashPoint.RETRY_COMMITTED)
        return follow_up

    def decide_standby(self, coupon_id: int) -> FollowUp:
        """Promote or refuse the standby requests of a coupon as far as possible now, in one short transaction.

        Raises Unavailable when the database is away or overloaded; then nothing has changed.
        """
        with in_transaction(self._engine) as tx:
            coupon_ids = coupons.lock(tx, [coupon_id]).keys()  # lock first: `decided_at` must be later than the lock
            transaction = RetryTransaction(tx, self._reader, notices=self._notices)
            transaction.decide_standby(coupon_ids)
            follow_up = transaction.finish()
            crash_points.reach(CrashPoint.STANDBY_WRITTEN)
        crash_points.reach(CrashPoint.STANDBY_COMMITTED)
        return follow_up


class RetryTransaction:
    """A transaction that attempts held and standby requests, in the order given, without deciding eligibility again.

    Its caller holds the lock of every coupon involved.
    """

    def __init__(self, tx: Connection, reader: RecordReader, *, notices: bool) -> None:
        self._tx = tx
        self._reader = reader
        self._writer = DecisionWriter(tx, notices=notices)
        self._follow_up = FollowUp()
        self._decided = 0
        self._failed = 0

    def retry(self, log_id: int, held: Sequence[WaitingRequest]) -> None:
        """Issue requests of one log that have failed before, in order; one that fails again is due again or dead."""
        self._write_attempts(probe_then_write, log_id, held)

    def decide_standby(self, coupon_ids: Iterable[int]) -> None:
        """Promote and refuse until the remaining requests must wait. A failed promotion is held."""
        for coupon_id in sorted(coupon_ids):
            while not self._is_full and (decided := self._take_standby_step(coupon_id)):
                self._decided += decided
            if self._is_full and next_standby_action(self._coupon(coupon_id)) is not StandbyAction.WAIT:
                self._follow_up.coupons_with_standby.append(coupon_id)

    def finish(self) -> FollowUp:
        """Write the outbox entries and return what remains to be done after the commit."""
        self._follow_up.outbox_kinds = self._writer.write_outbox()
        return self._follow_up

    @property
    def _is_full(self) -> bool:
        return self._decided >= STANDBY_BATCH_SIZE or self._failed >= MAX_FAILURES_PER_TRANSACTION

    def _coupon(self, coupon_id: int) -> Coupon:
        """Return the locked coupon with this transaction's changes."""
        return coupons.get_many(self._tx, [coupon_id])[coupon_id]

    def _take_standby_step(self, coupon_id: int) -> int:
        """Promote some or refuse all standby requests of the coupon; return how many were decided."""
        coupon = self._coupon(coupon_id)
        action = next_standby_action(coupon)
        if action is StandbyAction.WAIT:
            return 0
        if action is StandbyAction.PROMOTE:
            limit = min(_PROMOTION_BATCH_SIZE, coupon.remaining)
            log_id, standby = retries.first_standby(self._tx, coupon_id, limit)
            self._write_attempts(write_bisecting, log_id, standby)
        else:
            log_id, standby = retries.first_standby(self._tx, coupon_id, STANDBY_BATCH_SIZE)
            outcomes = [Outcome(one.request, RequestState.REFUSED, ReasonCode.SOLD_OUT) for one in standby]
            self._writer.update(log_id, outcomes, attempts_added=1)
            self._writer.add_outcomes(log_id, outcomes)
            retries.remove(self._tx, log_id, [one.request.log_position for one in standby])
        return len(standby)

    def _write_attempts(self, write_all: Callable[..., object], log_id: int, seated: Sequence[WaitingRequest]) -> None:
        """Write one more attempt of each request of one log with probe_then_write or write_bisecting."""
        write = partial(self.write, log_id)
        write_all(
            seated,
            write,
            lambda one, failure: write([one], {one.request.request_id: failure}),
            partial(self.find_failing, log_id),
        )

    def write(self, log_id: int, seated: Sequence[WaitingRequest], failing: Failures) -> None:
        """Write one more attempt of each request.

        If the database raises, roll back to the savepoint and re-raise the error.
        """
        succeeding = [one for one in seated if one.request.request_id not in failing]
        failed = [(one, failing[one.request.request_id]) for one in seated if one.request.request_id in failing]
        delays = [ISSUE_RETRY_POLICY.delay_after(one.attempts + 1) for one, _ in failed]
        due = [(*one, delay) for one, delay in zip(failed, delays, strict=True) if delay is not None]
        dead = [one for one, delay in zip(failed, delays, strict=True) if delay is None]
        with savepoint(self._tx):
            outcomes = self._issue_outcomes(succeeding)
            self._writer.update(log_id, outcomes, attempts_added=1)
            retries.remove(self._tx, log_id, [one.request.log_position for one in succeeding])
            write_probe.raise_injected(self._tx, map(self._injected_fault, succeeding))
            postponed = [(one.request.log_position, failure, delay) for one, failure, delay in due]
            retries.postpone(self._tx, log_id, postponed)
            retrying = [Outcome(one.request, RequestState.RETRYING) for one, *_ in due]
            self._writer.update(log_id, retrying, attempts_added=1)
            outcomes += self._give_up(log_id, dead)
            codes = [ReasonCode.EXHAUSTED if delay is None else None for delay in delays]
            attempts = [
                FailedAttempt(one.request.log_position, one.total_attempts + 1, failure, code)
                for (one, failure), code in zip(failed, codes, strict=True)
            ]
            failed_attempts.insert(self._tx, log_id, attempts, self._writer.decided_at)
        self._writer.add_outcomes(log_id, outcomes)
        self._failed += len(failing)
        self._follow_up.has_dead_letters = self._follow_up.has_dead_letters or bool(dead)
        for one, failure, _ in due:
            held = HeldFailure(one.request.coupon_id, failure)
            self._follow_up.hold(log_id, one.request.log_position, one.attempts + 1, held)

    def _give_up(self, log_id: int, dead: Sequence[tuple[WaitingRequest, Failure]]) -> list[Outcome]:
        """Release the seats and store the dead letters; forwarding them to their topic happens later."""
        outcomes = [Outcome(one.request, RequestState.DEAD, ReasonCode.EXHAUSTED) for one, _ in dead]
        self._writer.update(log_id, outcomes, attempts_added=1)
        new = [
            NewDeadLetter(
                one.raw,
                one.request,
                ReasonCode.EXHAUSTED,
                one.total_attempts + 1,
                one.first_error or str(failure),
                failure,
            )
            for one, failure in dead
        ]
        dead_letters.insert(self._tx, log_id, new)
        retries.remove(self._tx, log_id, [one.request.log_position for one, _ in dead])
        return outcomes

    def _issue_outcomes(self, seated: Sequence[WaitingRequest]) -> list[Outcome]:
        requests = [one.request for one in seated]
        return issue_seated(requests, coupons.get_many(self._tx, {request.coupon_id for request in requests}))

    def find_failing(self, log_id: int, seated: Sequence[WaitingRequest]) -> Failures:
        """Return which of the requests cannot be issued."""
        probed = [
            ProbedWrite(log_id, outcome, is_new=False, fault=self._injected_fault(one))
            for one, outcome in zip(seated, self._issue_outcomes(seated), strict=True)
        ]
        return write_probe.find_failing(self._tx, probed, self._writer.decided_at)

    def _injected_fault(self, one: WaitingRequest) -> str | None:
        return write_probe.raise_statement(self._reader.injected_fault(one.raw), one.total_attempts + 1)
