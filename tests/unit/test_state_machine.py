"""Every promise after every step, whatever comes in whatever order: requests, failures, operators."""

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
from tests.unit.world import chances, issuing, promises, recovering, replaying
from tests.unit.world.chances import Commit, Meanwhile
from tests.unit.world.gate import Gate
from tests.unit.world.trouble import NONE, Troubles
from tests.unit.world.world import PARTITION_OF, Append, Stray, World


class _KilledError(BaseException):
    """A process died."""


class Sale(RuleBasedStateMachine):
    """Three coupons on two partitions, eight users, two consumers of whom either may be the one left behind."""

    def __init__(self) -> None:
        super().__init__()
        self._start(World([]))

    def _start(self, world: World) -> None:
        self.world, self.db = world, world.db
        self.before = self.db.copy()
        self.replayed: Sequence[LogPosition] = ()
        self.sound = True
        self._rebalance()

    @initialize(offers=chances.OFFERS, waitlist=chances.WAITLISTS, users=chances.USERS, troubles=chances.TROUBLES)
    def begin(self, offers: Sequence[int], waitlist: int, users: Sequence[int], troubles: Troubles) -> None:
        """The first requests are decided already: from the start some may be held, and others wait."""
        self._start(World(coupon(one, quantity, waitlist=waitlist) for one, quantity in enumerate(offers, start=1)))
        self.ask_without_redis(1, users)
        self.one_delivers(len(users), troubles, Commit.HEARD)

    @rule(coupon_id=chances.COUPONS, users=chances.USERS, end=chances.APPENDS)
    def ask(self, coupon_id: int, users: Sequence[int], end: Append) -> None:
        for user in users:
            self.world.ask((coupon_id, user), end)

    @rule(coupon_id=chances.COUPONS, users=chances.USERS)
    def ask_without_redis(self, coupon_id: int, users: Sequence[int]) -> None:
        for user in users:
            self.world.ask_database((coupon_id, user))

    @rule(coupon_id=chances.COUPONS_OR_NONE, user=st.integers(1, 8), stray=chances.STRAYS)
    def others_write(self, coupon_id: int, user: int, stray: Stray) -> None:
        self.world.stray((coupon_id, user), stray)

    @rule(most=st.integers(1, 6), troubles=chances.TROUBLES, commit=chances.COMMITS)
    def one_delivers(self, most: int, troubles: Troubles, commit: Commit) -> None:
        self._deliver("one", most, troubles, commit)

    @rule(most=st.integers(1, 6), troubles=chances.TROUBLES, commit=chances.COMMITS)
    def another_delivers(self, most: int, troubles: Troubles, commit: Commit) -> None:
        self._deliver("another", most, troubles, commit)

    def _deliver(self, name: str, most: int, troubles: Troubles, commit: Commit) -> None:
        """A consumer that was left behind is fenced, and placed anew like one whose system failed."""
        position = self.positions[name]
        records = [record for at, log in self.world.log.items() for record in log[position[at] :][:most]]
        try:
            with self.db.transaction():
                issued = issuing.issue(self.db, records, position, troubles)
                if commit is Commit.KILLED:
                    raise _KilledError
        except (Fenced, ConnectionError, _KilledError):
            self.positions[name] = dict(self.db.offsets)
        else:
            if commit is Commit.HEARD:
                position |= issued

    @precondition(lambda self: 1 in self.db.retries.values())
    @rule(few=chances.FEW, troubles=chances.FAILURES, at_once=chances.AT_ONCE)
    def try_again(self, few: int, troubles: Troubles, at_once: int) -> None:
        self._retry(1, few, troubles, at_once)

    @precondition(lambda self: 2 in self.db.retries.values())
    @rule(few=chances.FEW, troubles=chances.FAILURES, at_once=chances.AT_ONCE)
    def try_for_the_last_time(self, few: int, troubles: Troubles, at_once: int) -> None:
        self._retry(2, few, troubles, at_once)

    def _retry(self, made: int, few: int, troubles: Troubles, at_once: int) -> None:
        places = sorted(at for at, attempts in self.db.retries.items() if attempts == made)
        with suppress(ConnectionError):
            recovering.retry(self.db, places[:few], made, troubles, at_once)

    @precondition(lambda self: 0 in self.db.retries.values())
    @rule(coupon_id=chances.COUPONS, troubles=chances.TROUBLES, at_once=chances.AT_ONCE)
    def settle(self, coupon_id: int, troubles: Troubles, at_once: int) -> None:
        with suppress(ConnectionError):
            recovering.settle(self.db, coupon_id, troubles, at_once)

    @rule(coupon_id=chances.COUPONS, values=chances.QUANTITIES, reached=st.booleans())
    def change_quantity(self, coupon_id: int, values: dict[str, Any], reached: bool) -> None:
        self._change(coupon_id, values, reached)

    @rule(coupon_id=chances.COUPONS, values=chances.HOURS, reached=st.booleans())
    def change_hours(self, coupon_id: int, values: dict[str, Any], reached: bool) -> None:
        self._change(coupon_id, values, reached)

    def _change(self, coupon_id: int, values: dict[str, Any], reached: bool) -> None:
        """The change stands, also where all or most of what follows from it is left to the sweep."""
        with suppress(Conflict):
            issuing.change(self.db, coupon_id, PARTITION_OF[coupon_id], values)
        if reached:
            self.settle(coupon_id, NONE, 1)
            self.world.gate.hear_changes(self.db)

    @precondition(lambda self: len(replaying.untouched(self.db)) > 0)
    @rule(few=chances.FEW, troubles=chances.TROUBLES, readable=st.booleans())
    def replay(self, few: int, troubles: Troubles, readable: bool) -> None:
        self.replayed = replaying.untouched(self.db)[:few]
        with suppress(ConnectionError):
            replaying.bring_back(self.db, self.replayed, self.world.poison if readable else {}, troubles)

    @rule(what=chances.MEANWHILE)
    def meanwhile(self, what: Meanwhile) -> None:
        match what:
            case Meanwhile.REBALANCE:
                self._rebalance()
            case Meanwhile.FLUSH:
                self.world.gate = Gate()
            case Meanwhile.TELL_GATE:
                self._tell_gate()
            case Meanwhile.SWEEP:
                self.world.sweep()
            case Meanwhile.DISCARD:
                replaying.discard(self.db, replaying.untouched(self.db)[-1:])

    def _rebalance(self) -> None:
        self.positions = {name: dict(self.db.offsets) for name in ("one", "another")}

    def _tell_gate(self) -> None:
        self.world.gate.hear_decisions(self.db)
        self.world.gate.hear_changes(self.db)

    @invariant()
    def the_promises_hold(self) -> None:
        self.sound = False
        promises.counted(self.db)
        promises.kept(self.world)
        promises.stepped(self.db, self.before, self.replayed)
        promises.ruled(self.db)
        self.before, self.replayed, self.sound = self.db.copy(), (), True

    def teardown(self) -> None:
        """Everything comes to rest."""
        if not self.sound:  # what was found is told as it was found
            return
        while any(len(log) > self.db.offsets[partition] for partition, log in self.world.log.items()):
            self._rebalance()
            self._deliver("one", 6, NONE, Commit.HEARD)
            self.the_promises_hold()
        for made in (1, 2):
            recovering.retry(self.db, list(self.db.retries), made, NONE, 1_000)
            for coupon_id in self.db.values:
                recovering.settle(self.db, coupon_id, NONE, 1_000)
        self._tell_gate()
        self.world.sweep()
        self.the_promises_hold()
        promises.rested(self.world)


@pytest.mark.timeout(400)  # one that fails looks long for the shortest way to fail
def test_the_promises_hold_whatever_comes() -> None:
    """P1 to P7, of the pure core: requested, repeated, delivered, killed, delivered again, retried, dead, replayed."""
    often = settings(max_examples=800, stateful_step_count=50, derandomize=True, report_multiple_bugs=False)
    run_state_machine_as_test(Sale, settings=often)
