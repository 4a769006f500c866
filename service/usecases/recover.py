"""Step 6: tries held requests again, gives up those that had their attempts, and settles who waited for a seat."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from service.domain.coupon import Coupon
from service.domain.decide import Outcome, Tally, settle
from service.domain.fates import Failure
from service.domain.record import Fault
from service.domain.request import Code, Place, Request, State
from service.domain.retry import ISSUING
from service.store import coupons, dead_letters, faults, handoffs, requests, retries
from service.store.dead_letters import DeadLetter
from service.store.handoffs import Kind, Range
from service.store.retries import Held
from service.stream.codec import Reader
from service.usecases.plan import hand_off_kinds
from service.usecases.segments import in_segments


@dataclass(slots=True)
class Recovered:
    """What an attempt led to, for those who are told after the commit."""

    #: requests that failed once more and are due again
    again: list[Place] = field(default_factory=list)
    kinds: set[Kind] = field(default_factory=set)
    dead: bool = False


class _Taken(NamedTuple):
    """A held request that this attempt is for."""

    held: Held
    request: Request
    fault: Fault | None


class Recoverer:
    """Decides held requests under the same locks as the issuer."""

    def __init__(self, engine: Engine, log: int, reader: Reader, *, notices: bool) -> None:
        self._engine = engine
        self._log = log
        self._reader = reader
        self._notices = notices

    def retry(self, places: Sequence[Place], attempts_made: int) -> Recovered:
        """Makes one more attempt for those that have had exactly `attempts_made`; others are left as they are.

        Requests that succeed are issued; one that fails by itself is due again, or dead after its last attempt.
        System failures are raised, spend no attempt and leave everything as it was.
        """
        done = Recovered()
        with self._engine.begin() as tx:
            held = retries.take(tx, self._log, sorted(places), attempts_made)
            read = ((one, self._reader.read(one.raw)) for one in held)
            taken = [_Taken(one, record.request, record.fault) for one, record in read if record.request]
            coupons.lock(tx, {one.request.coupon_id for one in taken})
            in_segments(
                taken,
                lambda some: self._issue(tx, some, done),
                lambda one, failure: self._fail(tx, one.held, one.request, failure, done),
            )
        return done

    def _issue(self, tx: Connection, taken: Sequence[_Taken], done: Recovered) -> None:
        with tx.begin_nested():
            asked = [one.request for one in taken]
            locked = coupons.some(tx, {request.coupon_id for request in asked})
            self._store(tx, seated(asked, locked), locked, done)
            retries.remove(tx, self._log, [request.place for request in asked])
            faults.raise_first(tx, [one.fault for one in taken], taken[0].held.attempts + 1)

    def _fail(self, tx: Connection, held: Held, request: Request, failure: Failure, done: Recovered) -> None:
        delay = ISSUING.delay_after(held.attempts + 1)
        if delay is None:
            self._bury(tx, held, request, failure, done)
        else:
            self._postpone(tx, request, failure, delay, done)

    def _postpone(self, tx: Connection, request: Request, failure: Failure, delay: float, done: Recovered) -> None:
        now = datetime.now(UTC)
        retries.postpone(tx, self._log, [request.place], failure, now + timedelta(seconds=delay))
        requests.update(tx, self._log, [Outcome(request, State.RETRYING)], now, spent=1)
        done.again.append(request.place)

    def _bury(self, tx: Connection, held: Held, request: Request, failure: Failure, done: Recovered) -> None:
        """Gives the seat up and the dead letter to the store; forwarding it may wait, this decision does not."""
        locked = coupons.some(tx, [request.coupon_id])
        self._store(tx, [Outcome(request, State.DEAD, Code.EXHAUSTED)], locked, done)
        letter = DeadLetter(held.raw, request, Code.EXHAUSTED, held.attempts + 1, held.first_error, failure)
        dead_letters.insert(tx, self._log, [letter])
        retries.remove(tx, self._log, [request.place])
        done.dead = True

    def _store(self, tx: Connection, own: Sequence[Outcome], locked: Mapping[int, Coupon], done: Recovered) -> None:
        """Writes the outcomes of held requests and what follows for those on standby behind them."""
        now = datetime.now(UTC)
        followers = [outcome for coupon in after(own, locked).values() for outcome in self._settle(tx, coupon)]
        requests.update(tx, self._log, own, now, spent=1)
        requests.update(tx, self._log, followers, now, spent=0)
        kinds = hand_off_kinds([*own, *followers], locked, notices=self._notices)
        handoffs.insert(tx, self._log, kinds, _ranges([*own, *followers]), now)
        done.kinds |= kinds

    def _settle(self, tx: Connection, coupon: Coupon) -> list[Outcome]:
        """Reads only as many of those on standby as can be decided now."""
        if coupon.held and coupon.remaining <= 0:
            return []
        limit = coupon.remaining if coupon.held else None
        return settle(coupon, requests.standby(tx, self._log, coupon.id, limit))


def seated(held: Sequence[Request], locked: Mapping[int, Coupon]) -> list[Outcome]:
    """Issues requests that hold seats, each coupon's in offset order."""
    tallies = {coupon_id: Tally.of(coupon) for coupon_id, coupon in locked.items()}
    return [tallies[request.coupon_id].issue(request) for request in held]


def after(outcomes: Sequence[Outcome], locked: Mapping[int, Coupon]) -> dict[int, Coupon]:
    """The coupons as they are once held requests have become these outcomes: issued or dead."""
    coupons_after = dict(locked)
    for outcome in outcomes:
        coupon = coupons_after[outcome.request.coupon_id]
        issued = coupon.issued + (outcome.state is State.ISSUED)
        coupons_after[coupon.id] = coupon._replace(issued=issued, held=coupon.held - 1)
    return coupons_after


def _ranges(outcomes: Sequence[Outcome]) -> list[Range]:
    offsets: dict[int, list[int]] = {}
    for outcome in outcomes:
        offsets.setdefault(outcome.request.place.partition, []).append(outcome.request.place.offset)
    return [found for partition, at in sorted(offsets.items()) for found in _close(partition, sorted(at))]


def _close(partition: int, offsets: Sequence[int]) -> Iterator[Range]:
    """Ranges that cover the offsets and not the long stretches between them."""
    first = last = offsets[0]
    for offset in offsets:
        if offset - last > handoffs.OFFSETS_AT_ONCE:
            yield Range(partition, first, last)
            first = offset
        last = offset
    yield Range(partition, first, last)
