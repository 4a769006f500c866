"""P1 to P7 after every step of random sales: requests, failures, crashes and operators' actions in any order."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from service.domain.errors import Conflict, Fenced
from service.domain.request import LogPosition
from tests.builders import coupon
from tests.unit.model import issuing, promises, recovering, replaying, strategies
from tests.unit.model.gate import Gate
from tests.unit.model.strategies import BackgroundEvent, CommitResult
from tests.unit.model.system import PARTITION_OF, AppendResult, SystemModel, UngatedRecord
from tests.unit.model.write_failures import NO_FAILURES, InjectedFailures


class _KilledError(BaseException):
    """A process was killed."""


class Sale(RuleBasedStateMachine):
    """Three coupons on two partitions, eight users, and two consumers, either of which may be stale."""

    def __init__(self) -> None:
        super().__init__()
        self._start(SystemModel([]))

    def _start(self, model: SystemModel) -> None:
        self.model, self.db = model, model.db
        self.before = self.db.copy()
        self.replayed: Sequence[LogPosition] = ()
        self.promises_hold = True
        self._rebalance()

    @initialize(
        quantities=strategies.QUANTITIES,
        waitlist=strategies.WAITLISTS,
        users=strategies.USERS,
        failures=strategies.FAILURES_OR_NONE,
    )
    def begin(self, quantities: Sequence[int], waitlist: int, users: Sequence[int], failures: InjectedFailures) -> None:
        """Decide the first requests, so that some may be held or standby from the start."""
        self._start(
            SystemModel(
                coupon(coupon_id, quantity, waitlist=waitlist) for coupon_id, quantity in enumerate(quantities, start=1)
            )
        )
        self.submit_without_redis(1, users)
        self.first_consumer_polls(len(users), failures, CommitResult.ACKNOWLEDGED)

    @rule(coupon_id=strategies.COUPONS, users=strategies.USERS, result=strategies.APPEND_RESULTS)
    def submit(self, coupon_id: int, users: Sequence[int], result: AppendResult) -> None:
        for user in users:
            self.model.submit((coupon_id, user), result)

    @rule(coupon_id=strategies.COUPONS, users=strategies.USERS)
    def submit_without_redis(self, coupon_id: int, users: Sequence[int]) -> None:
        for user in users:
            self.model.submit_without_redis((coupon_id, user))

    @rule(coupon_id=strategies.COUPONS_AND_UNKNOWN, user=st.integers(1, 8), kind=strategies.UNGATED_RECORDS)
    def append_ungated(self, coupon_id: int, user: int, kind: UngatedRecord) -> None:
        self.model.append_ungated((coupon_id, user), kind)

    @rule(
        max_records=st.integers(1, 6),
        failures=strategies.FAILURES_OR_NONE,
        commit=strategies.COMMIT_RESULTS,
    )
    def first_consumer_polls(self, max_records: int, failures: InjectedFailures, commit: CommitResult) -> None:
        self._poll("first", max_records, failures, commit)

    @rule(
        max_records=st.integers(1, 6),
        failures=strategies.FAILURES_OR_NONE,
        commit=strategies.COMMIT_RESULTS,
    )
    def second_consumer_polls(self, max_records: int, failures: InjectedFailures, commit: CommitResult) -> None:
        self._poll("second", max_records, failures, commit)

    def _poll(self, consumer: str, max_records: int, failures: InjectedFailures, commit: CommitResult) -> None:
        """Issue a batch; a consumer that is fenced or fails starts again at the database's offsets."""
        offsets = self.offsets[consumer]
        records = [
            record for partition, log in self.model.log.items() for record in log[offsets[partition] :][:max_records]
        ]
        try:
            with self.db.transaction():
                next_offsets = issuing.issue(self.db, records, offsets, failures)
                if commit is CommitResult.KILLED:
                    raise _KilledError
        except (Fenced, ConnectionError, _KilledError):
            self.offsets[consumer] = dict(self.db.offsets)
        else:
            if commit is CommitResult.ACKNOWLEDGED:
                offsets |= next_offsets

    @precondition(lambda self: 1 in self.db.retries.values())
    @rule(size=strategies.BATCH_SIZES, failures=strategies.FAILURES, max_standby=strategies.STANDBY_LIMITS)
    def retry_after_one_attempt(self, size: int, failures: InjectedFailures, max_standby: int) -> None:
        self._retry(1, size, failures, max_standby)

    @precondition(lambda self: 2 in self.db.retries.values())
    @rule(size=strategies.BATCH_SIZES, failures=strategies.FAILURES, max_standby=strategies.STANDBY_LIMITS)
    def retry_after_two_attempts(self, size: int, failures: InjectedFailures, max_standby: int) -> None:
        self._retry(2, size, failures, max_standby)

    def _retry(self, attempts_made: int, size: int, failures: InjectedFailures, max_standby: int) -> None:
        positions = sorted(position for position, attempts in self.db.retries.items() if attempts == attempts_made)
        with suppress(ConnectionError):
            recovering.retry(self.db, positions[:size], attempts_made, failures, max_standby)

    @precondition(lambda self: 0 in self.db.retries.values())
    @rule(
        coupon_id=strategies.COUPONS,
        failures=strategies.FAILURES_OR_NONE,
        max_standby=strategies.STANDBY_LIMITS,
    )
    def decide_standby(self, coupon_id: int, failures: InjectedFailures, max_standby: int) -> None:
        with suppress(ConnectionError):
            recovering.decide_standby(self.db, coupon_id, failures, max_standby)

    @rule(coupon_id=strategies.COUPONS, values=strategies.QUANTITY_CHANGES, completes=st.booleans())
    def change_quantity(self, coupon_id: int, values: dict[str, Any], completes: bool) -> None:
        self._change(coupon_id, values, completes)

    @rule(coupon_id=strategies.COUPONS, values=strategies.WINDOW_CHANGES, completes=st.booleans())
    def change_window(self, coupon_id: int, values: dict[str, Any], completes: bool) -> None:
        self._change(coupon_id, values, completes)

    def _change(self, coupon_id: int, values: dict[str, Any], completes: bool) -> None:
        """Change a coupon; what follows the commit may be incomplete or missing, and is then left to the sweep."""
        with suppress(Conflict):
            issuing.change(self.db, coupon_id, PARTITION_OF[coupon_id], values)
        if completes:
            self.decide_standby(coupon_id, NO_FAILURES, 1)
            self.model.gate.apply_changes(self.db)

    @precondition(lambda self: len(replaying.new_dead_letters(self.db)) > 0)
    @rule(size=strategies.BATCH_SIZES, failures=strategies.FAILURES_OR_NONE, readable=st.booleans())
    def replay(self, size: int, failures: InjectedFailures, readable: bool) -> None:
        self.replayed = replaying.new_dead_letters(self.db)[:size]
        with suppress(ConnectionError):
            replaying.replay(self.db, self.replayed, self.model.poison if readable else {}, failures)

    @rule(event=strategies.BACKGROUND_EVENTS)
    def background(self, event: BackgroundEvent) -> None:
        match event:
            case BackgroundEvent.REBALANCE:
                self._rebalance()
            case BackgroundEvent.FLUSH:
                self.model.gate = Gate()
            case BackgroundEvent.SYNC_GATE:
                self._sync_gate()
            case BackgroundEvent.SWEEP:
                self.model.sweep()
            case BackgroundEvent.DISCARD:
                replaying.discard(self.db, replaying.new_dead_letters(self.db)[-1:])

    def _rebalance(self) -> None:
        self.offsets = {consumer: dict(self.db.offsets) for consumer in ("first", "second")}

    def _sync_gate(self) -> None:
        self.model.gate.apply_decisions(self.db)
        self.model.gate.apply_changes(self.db)

    @invariant()
    def check_promises(self) -> None:
        self.promises_hold = False
        promises.check_counts(self.db)
        promises.check_nothing_lost(self.model)
        promises.check_step(self.db, self.before, self.replayed)
        promises.check_order(self.db)
        self.before, self.replayed, self.promises_hold = self.db.copy(), (), True

    def teardown(self) -> None:
        """Complete all work, then check the promises once more."""
        if not self.promises_hold:  # leave a failed state as it is, so that the first failure is the one reported
            return
        while any(len(log) > self.db.offsets[partition] for partition, log in self.model.log.items()):
            self._rebalance()
            self._poll("first", 6, NO_FAILURES, CommitResult.ACKNOWLEDGED)
            self.check_promises()
        for attempts_made in (1, 2):
            recovering.retry(self.db, list(self.db.retries), attempts_made, NO_FAILURES, 1_000)
            for coupon_id in self.db.values:
                recovering.decide_standby(self.db, coupon_id, NO_FAILURES, 1_000)
        self._sync_gate()
        self.model.sweep()
        self.check_promises()
        promises.check_completed(self.model)


@pytest.mark.timeout(400)  # a failing run takes long to find the shortest sequence of steps
def test_promises_hold_in_random_sales() -> None:
    """P1 to P7 of the domain functions: submit, repeat, deliver, kill, deliver again, retry, become dead, replay."""
    run = settings(max_examples=800, stateful_step_count=50, derandomize=True, report_multiple_bugs=False)
    run_state_machine_as_test(Sale, settings=run)
