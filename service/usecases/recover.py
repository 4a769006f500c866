"""Step 6: tries held requests again, gives up those that had their attempts, and settles who waited for a seat."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, Engine

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.coupon import Coupon
from service.domain.decide import Outcome, StandbyAction, issue_seated, next_standby_action
from service.domain.failures import Failure
from service.domain.request import LogPosition, ReasonCode, RequestState
from service.domain.retry import ISSUE_RETRY_POLICY
from service.store import coupons, dead_letters, fault_injection, retries, write_probe
from service.store.dead_letters import NewDeadLetter
from service.store.engine import in_transaction, savepoint
from service.store.outbox import OutboxKind
from service.store.retries import HeldRequest
from service.store.write_probe import ProbedWrite
from service.stream.codec import RecordReader
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION, Failures, probe_then_write, write_bisecting
from service.usecases.decision_writer import DecisionWriter

#: the most that are promoted or refused in one transaction
STANDBY_BATCH_SIZE = 1_000
#: so few at a time are promoted, so that the failures of one step are bounded too
_PROMOTED_AT_ONCE = 50


@dataclass(slots=True)
class FollowUp:
    """What an attempt led to, for those who are told after the commit."""

    #: requests that failed once more and are due again, by log and number of attempts made
    retries: dict[tuple[int, int], list[LogPosition]] = field(default_factory=dict)
    outbox_kinds: set[OutboxKind] = field(default_factory=set)
    has_dead_letters: bool = False
    #: coupons with more on standby to be decided than one transaction takes
    coupons_with_standby: list[int] = field(default_factory=list)


class Recoverer:
    """Decides held and standby requests under the same locks as the issuer."""

    def __init__(self, engine: Engine, reader: RecordReader, *, notices: bool) -> None:
        self._engine = engine
        self._reader = reader
        self._notices = notices

    def retry(self, log_id: int, log_positions: Sequence[LogPosition], attempts_made: int) -> FollowUp:
        """Makes one more attempt for those that have had exactly `attempts_made`; others are left as they are.

        Requests that succeed are issued; one that fails by itself is due again, or dead after its last attempt, and
        then its seat goes to the lowest standby offset. System failures are raised, spend no attempt and leave
        everything as it was.
        """
        with self._engine.begin() as tx:
            taken = retries.lock_for_attempt(tx, log_id, sorted(log_positions), attempts_made)
            crash_points.reach(CrashPoint.RETRY_TAKEN)
            coupon_ids = coupons.lock(tx, {held.request.coupon_id for held in taken}).keys()
            attempt = RetryTransaction(tx, self._reader, notices=self._notices)
            attempt.again(log_id, taken)
            attempt.settle(coupon_ids)
            recovered = attempt.end()
            crash_points.reach(CrashPoint.RETRY_WRITTEN)
        crash_points.reach(CrashPoint.RETRY_COMMITTED)
        return recovered

    def decide_standby(self, coupon_id: int) -> FollowUp:
        """Promotes or refuses those on standby for a coupon, as far as can be decided now, in one short transaction.

        Raises Unavailable when the database is away or busy; then nothing has happened.
        """
        with in_transaction(self._engine) as tx:
            locked = coupons.lock(tx, [coupon_id]).keys()  # before the moment of decision is noted
            attempt = RetryTransaction(tx, self._reader, notices=self._notices)
            attempt.settle(locked)
            recovered = attempt.end()
            crash_points.reach(CrashPoint.STANDBY_WRITTEN)
        crash_points.reach(CrashPoint.STANDBY_COMMITTED)
        return recovered


class RetryTransaction:
    """A transaction that tries requests which have a seat; it holds the lock of every coupon it touches."""

    def __init__(self, tx: Connection, reader: RecordReader, *, notices: bool) -> None:
        self._tx = tx
        self._reader = reader
        self._rows = DecisionWriter(tx, notices=notices)
        self._done = FollowUp()
        self._decided = 0
        self._failed = 0

    def again(self, log_id: int, held: Sequence[HeldRequest]) -> None:
        """Issues requests of one log that have failed before, in order; one that fails again is due again or dead."""
        self._make(probe_then_write, log_id, held)

    def _make(self, segments: Callable[..., object], log_id: int, seated: Sequence[HeldRequest]) -> None:
        write = partial(self._write, log_id)
        segments(
            seated,
            write,
            lambda one, failure: write([one], {one.request.request_id: failure}),
            partial(self._failing, log_id),
        )

    def settle(self, coupon_ids: Iterable[int]) -> None:
        """Takes turns until those on standby have to wait; a promotion that fails is held, and the next turn knows."""
        for coupon_id in sorted(coupon_ids):
            while not self._has_enough and (decided := self._take_turn(coupon_id)):
                self._decided += decided
            if self._has_enough and next_standby_action(self._coupon(coupon_id)) is not StandbyAction.WAIT:
                self._done.coupons_with_standby.append(coupon_id)

    @property
    def _has_enough(self) -> bool:
        return self._decided >= STANDBY_BATCH_SIZE or self._failed >= MAX_FAILURES_PER_TRANSACTION

    def end(self) -> FollowUp:
        """Leaves the hand-offs; what came of it all."""
        self._done.outbox_kinds = self._rows.write_outbox()
        return self._done

    def _write(self, log_id: int, seated: Sequence[HeldRequest], failing: Failures) -> None:
        """Writes one more attempt for each; raises what the database says, and then nothing of it stays."""
        failed = [(held, failing[held.request.request_id]) for held in seated if held.request.request_id in failing]
        again, dead = _sorted(failed)
        with savepoint(self._tx):
            outcomes = self._issue(log_id, [held for held in seated if held.request.request_id not in failing])
            self._postpone(log_id, again)
            outcomes += self._bury(log_id, dead)
        self._rows.mark_final(log_id, outcomes)
        self._failed += len(failing)
        self._done.has_dead_letters = self._done.has_dead_letters or bool(dead)
        for held, *_ in again:
            self._done.retries.setdefault((log_id, held.attempts + 1), []).append(held.request.log_position)

    def _issue(self, log_id: int, seated: Sequence[HeldRequest]) -> list[Outcome]:
        outcomes = self._seat(seated)
        self._rows.update(log_id, outcomes, attempts_added=1)
        retries.remove(self._tx, log_id, [held.request.log_position for held in seated])
        fault_injection.raise_injected(self._tx, map(self._fault, seated))
        return outcomes

    def _seat(self, seated: Sequence[HeldRequest]) -> list[Outcome]:
        asked = [held.request for held in seated]
        return issue_seated(asked, coupons.get_many(self._tx, {request.coupon_id for request in asked}))

    def _failing(self, log_id: int, seated: Sequence[HeldRequest]) -> Failures:
        """Which of them cannot be issued."""
        tried = [
            ProbedWrite(log_id, outcome, is_new=False, fault=self._fault(held))
            for held, outcome in zip(seated, self._seat(seated), strict=True)
        ]
        return write_probe.find_failing(self._tx, tried, self._rows.decided_at)

    def _fault(self, held: HeldRequest) -> str | None:
        return fault_injection.raise_statement(self._reader.injected_fault(held.raw), held.total_attempts + 1)

    def _postpone(self, log_id: int, failed: Sequence[tuple[HeldRequest, Failure, float]]) -> None:
        retries.postpone(
            self._tx, log_id, [(held.request.log_position, failure, delay) for held, failure, delay in failed]
        )
        self._rows.update(
            log_id, [Outcome(held.request, RequestState.RETRYING) for held, *_ in failed], attempts_added=1
        )

    def _bury(self, log_id: int, failed: Sequence[tuple[HeldRequest, Failure]]) -> list[Outcome]:
        """Gives the seats up and the dead letters to the store; forwarding may wait, these decisions do not."""
        outcomes = [Outcome(held.request, RequestState.DEAD, ReasonCode.EXHAUSTED) for held, _ in failed]
        self._rows.update(log_id, outcomes, attempts_added=1)
        dead_letters.insert(self._tx, log_id, [_letter(held, failure) for held, failure in failed])
        retries.remove(self._tx, log_id, [held.request.log_position for held, _ in failed])
        return outcomes

    def _take_turn(self, coupon_id: int) -> int:
        """One step for the coupon's standby; how many it decided."""
        coupon = self._coupon(coupon_id)
        now = next_standby_action(coupon)
        if now is StandbyAction.WAIT:
            return 0
        most = min(_PROMOTED_AT_ONCE, coupon.remaining) if now is StandbyAction.PROMOTE else STANDBY_BATCH_SIZE
        log, first = retries.first_standby(self._tx, coupon_id, most)
        if now is StandbyAction.PROMOTE:
            self._make(write_bisecting, log, first)
        else:
            self._refuse(log, first)
        return len(first)

    def _coupon(self, coupon_id: int) -> Coupon:
        """The locked coupon as this transaction has left it."""
        return coupons.get_many(self._tx, [coupon_id])[coupon_id]

    def _refuse(self, log_id: int, standby: Sequence[HeldRequest]) -> None:
        outcomes = [Outcome(held.request, RequestState.REFUSED, ReasonCode.SOLD_OUT) for held in standby]
        self._rows.update(log_id, outcomes, attempts_added=1)
        self._rows.mark_final(log_id, outcomes)
        retries.remove(self._tx, log_id, [held.request.log_position for held in standby])


def _sorted(
    failed: Iterable[tuple[HeldRequest, Failure]],
) -> tuple[list[tuple[HeldRequest, Failure, float]], list[tuple[HeldRequest, Failure]]]:
    """Those that are due again, after so many seconds, and those that have had their attempts."""
    again, dead = [], []
    for held, failure in failed:
        delay = ISSUE_RETRY_POLICY.delay_after(held.attempts + 1)
        if delay is None:
            dead.append((held, failure))
        else:
            again.append((held, failure, delay))
    return again, dead


def _letter(held: HeldRequest, failure: Failure) -> NewDeadLetter:
    first = held.first_error or str(failure)
    return NewDeadLetter(held.raw, held.request, ReasonCode.EXHAUSTED, held.total_attempts + 1, first, failure)
