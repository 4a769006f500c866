"""Every promise after every step, whatever comes in whatever order: requests, failures, operators."""

from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.domain.coupon import Override
from service.domain.errors import Conflict, Fenced
from service.domain.request import Place
from tests.builders import coupon
from tests.unit.world import promises
from tests.unit.world.gate import Gate
from tests.unit.world.trouble import NONE, Trouble, Troubles
from tests.unit.world.world import UNKNOWN, Append, Stray, World


class Commit(StrEnum):
    """What a consumer learns of its commit."""

    HEARD = "heard"
    #: it is made, and the consumer comes again with the same records
    UNHEARD = "unheard"
    #: killed right before it
    KILLED = "killed"


class Meanwhile(StrEnum):
    """What else happens."""

    #: a consumer is placed where the database stands
    REBALANCE = "rebalance"
    FLUSH = "flush"
    TELL_GATE = "tell gate"
    SWEEP = "sweep"


class _KilledError(BaseException):
    """A process died."""


#: the first coupon is wanted most, so that its line grows
_COUPONS = st.sampled_from((1, 1, 1, 2, 3))
#: users in the order of their numbers, each as likely as not
_SOME = st.integers(1, 2**8 - 1).map(lambda bits: [user for user in range(1, 9) if bits >> user - 1 & 1])
_ENDS = st.sampled_from((*[Append.ACKNOWLEDGED] * 4, *Append))
_COMMITS = st.sampled_from((*[Commit.HEARD] * 4, *Commit))
_TROUBLES = st.just(NONE) | st.builds(Troubles, st.sampled_from((*[Trouble.ISSUE] * 8, *Trouble)), _SOME)
#: how many on standby one transaction decides: as good as all, or too few
_AT_ONCE = st.sampled_from((1_000, 1, 2))
_MOMENTS = st.none() | st.integers(0, 99)


class Sale(RuleBasedStateMachine):
    """Three coupons on two partitions, five users, two consumers of whom either may be the one left behind."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World([])
        self.replayed: Sequence[Place] = ()
        self.before = dict(self.world.db.rows)
        self.sound = True

    @initialize(quantities=st.tuples(*[st.integers(1, 3)] * 3), waitlist=st.sampled_from((0, 2, 8)))
    def begin(self, quantities: Sequence[int], waitlist: int) -> None:
        offers = enumerate(quantities, start=1)
        self.world = World(coupon(one, quantity, waitlist=waitlist) for one, quantity in offers)
        self.positions = {name: dict(self.world.db.offsets) for name in ("one", "another")}

    @rule(coupon_id=_COUPONS, users=_SOME, end=_ENDS)
    def ask(self, coupon_id: int, users: Sequence[int], end: Append) -> None:
        for user in users:
            self.world.ask((coupon_id, user), end)

    @rule(coupon_id=_COUPONS, users=_SOME)
    def ask_without_redis(self, coupon_id: int, users: Sequence[int]) -> None:
        for user in users:
            self.world.ask_database((coupon_id, user))

    @rule(coupon_id=st.sampled_from((1, 1, 1, 2, 3, UNKNOWN)), user=st.integers(1, 8), stray=st.sampled_from(Stray))
    def others_write(self, coupon_id: int, user: int, stray: Stray) -> None:
        self.world.stray((coupon_id, user), stray)

    @rule(most=st.integers(1, 6), troubles=_TROUBLES, commit=_COMMITS)
    def one_delivers(self, most: int, troubles: Troubles, commit: Commit) -> None:
        self._deliver("one", most, troubles, commit)

    @rule(most=st.integers(1, 6), troubles=_TROUBLES, commit=_COMMITS)
    def another_delivers(self, most: int, troubles: Troubles, commit: Commit) -> None:
        self._deliver("another", most, troubles, commit)

    def _deliver(self, name: str, most: int, troubles: Troubles, commit: Commit) -> None:
        """A consumer that was left behind is fenced, and placed anew like one whose system failed."""
        position = self.positions[name]
        records = [record for at, log in self.world.log.items() for record in log[position[at] :][:most]]
        try:
            with self.world.db.transaction():
                self.world.deeds.issue(records, position, troubles)
                if commit is Commit.KILLED:
                    raise _KilledError
        except (Fenced, ConnectionError, _KilledError):
            self.rebalance()
        else:
            if commit is Commit.HEARD:
                position |= {record.raw.place.partition: record.raw.place.offset + 1 for record in records}

    @precondition(lambda self: 1 in self.world.db.retries.values())
    @rule(few=st.integers(1, 4), troubles=_TROUBLES, at_once=_AT_ONCE)
    def try_again(self, few: int, troubles: Troubles, at_once: int) -> None:
        self._retry(1, few, troubles, at_once)

    @precondition(lambda self: 2 in self.world.db.retries.values())
    @rule(few=st.integers(1, 4), troubles=_TROUBLES, at_once=_AT_ONCE)
    def try_for_the_last_time(self, few: int, troubles: Troubles, at_once: int) -> None:
        self._retry(2, few, troubles, at_once)

    def _retry(self, made: int, few: int, troubles: Troubles, at_once: int) -> None:
        places = sorted(at for at, attempts in self.world.db.retries.items() if attempts == made)
        with suppress(ConnectionError):
            self.world.deeds.retry(places[:few], made, troubles, at_once)

    @precondition(lambda self: not all(self.world.db.retries.values()))
    @rule(coupon_id=_COUPONS, troubles=_TROUBLES, at_once=_AT_ONCE)
    def settle(self, coupon_id: int, troubles: Troubles, at_once: int) -> None:
        with suppress(ConnectionError):
            self.world.deeds.settle(coupon_id, troubles, at_once)

    @rule(coupon_id=_COUPONS, quantity=st.integers(1, 6), waitlist=st.none() | st.integers(0, 8), reached=st.booleans())
    def change_quantity(self, coupon_id: int, quantity: int, waitlist: int | None, reached: bool) -> None:
        self._change(coupon_id, {"quantity": quantity} | ({} if waitlist is None else {"waitlist": waitlist}), reached)

    @rule(coupon_id=_COUPONS, override=st.sampled_from((Override.NONE, *Override)), reached=st.booleans())
    def pause_close_or_open(self, coupon_id: int, override: Override, reached: bool) -> None:
        self._change(coupon_id, {"override": override}, reached)

    @rule(coupon_id=_COUPONS, opens_at_ms=_MOMENTS, closes_at_ms=_MOMENTS, reached=st.booleans())
    def move_window(self, coupon_id: int, opens_at_ms: int | None, closes_at_ms: int | None, reached: bool) -> None:
        self._change(coupon_id, {"opens_at_ms": opens_at_ms, "closes_at_ms": closes_at_ms}, reached)

    def _change(self, coupon_id: int, values: dict[str, Any], reached: bool) -> None:
        """The change stands, also where what follows from it is left to the sweep."""
        with suppress(Conflict):
            self.world.deeds.change(coupon_id, values)
        if reached:
            self.settle(coupon_id, NONE, 1_000)
            self.world.gate.hear_changes(self.world.db)

    @precondition(lambda self: self.world.db.letters)
    @rule(few=st.integers(1, 3), troubles=_TROUBLES, readable=st.booleans())
    def replay(self, few: int, troubles: Troubles, readable: bool) -> None:
        self.replayed = sorted(self.world.db.letters)[:few]
        with suppress(ConnectionError):
            self.world.deeds.replay(self.replayed, troubles, readable=readable)

    @precondition(lambda self: self.world.db.letters)
    @rule()
    def discard(self) -> None:
        self.world.deeds.discard(max(self.world.db.letters))

    @rule(what=st.sampled_from(Meanwhile))
    def meanwhile(self, what: Meanwhile) -> None:
        match what:
            case Meanwhile.REBALANCE:
                self.rebalance()
            case Meanwhile.FLUSH:
                self.world.gate = Gate()
            case Meanwhile.TELL_GATE:
                self.tell_gate()
            case Meanwhile.SWEEP:
                self.world.sweep()

    def rebalance(self) -> None:
        self.positions = {name: dict(self.world.db.offsets) for name in ("one", "another")}

    def tell_gate(self) -> None:
        self.world.gate.hear_decisions(self.world.db)
        self.world.gate.hear_changes(self.world.db)

    @invariant()
    def the_promises_hold(self) -> None:
        self.sound = False
        promises.counted(self.world.db)
        promises.kept(self.world)
        promises.stepped(self.world.db, self.before, self.replayed)
        promises.ruled(self.world.db)
        self.before, self.replayed, self.sound = dict(self.world.db.rows), (), True

    def teardown(self) -> None:
        """Everything comes to rest: each request has its final answer, and the gate lets in whom there is room for."""
        if not self.sound:  # what was found is told as it was found
            return
        db = self.world.db
        while any(len(log) > db.offsets[partition] for partition, log in self.world.log.items()):
            self.rebalance()
            self._deliver("one", 6, NONE, Commit.HEARD)
        for made in (1, 2):
            self.world.deeds.retry(list(db.retries), made, NONE, 1_000)
            for coupon_id in db.values:
                self.world.deeds.settle(coupon_id, NONE, 1_000)
        self.tell_gate()
        self.world.sweep()
        self.the_promises_hold()
        promises.rested(self.world)


TestSale = Sale.TestCase
TestSale.settings = settings(max_examples=400, stateful_step_count=50, derandomize=True)
