"""Step 6: tries held requests again, gives up those that had their attempts, and settles who waited for a seat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, Engine

from service.domain.coupon import Coupon
from service.domain.decide import Outcome, Tally, settle
from service.domain.fates import Failure
from service.domain.request import Code, Place, Request, State
from service.domain.retry import ISSUING
from service.store import coupons, dead_letters, faults, handoffs, requests, retries
from service.store.dead_letters import DeadLetter
from service.store.handoffs import Kind, Range
from service.store.retries import Held
from service.stream.codec import Reader
from service.usecases.halves import in_halves
from service.usecases.plan import hand_off_kinds


@dataclass(slots=True)
class Recovered:
    """What an attempt led to, for those who are told after the commit."""

    #: requests that failed once more and are due again
    again: list[Place] = field(default_factory=list)
    kinds: set[Kind] = field(default_factory=set)
    dead: bool = False


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
        System failures are raised and spend no attempt.
        """
        done = Recovered()
        in_halves(
            sorted(places),
            lambda some: self._issue(some, attempts_made, done),
            lambda one, failure: self._fail(one, attempts_made, failure, done),
        )
        return done

    def _issue(self, places: Sequence[Place], attempts_made: int, done: Recovered) -> None:
        with self._engine.begin() as tx:
            records = [self._reader.read(held.raw) for held in retries.take(tx, self._log, places, attempts_made)]
            if not records:
                return
            asked = [record.request for record in records if record.request]
            locked = coupons.lock(tx, {request.coupon_id for request in asked})
            outcomes = seated(asked, locked)
            self._store(tx, outcomes, locked, done)
            retries.remove(tx, self._log, [record.raw.place for record in records])
            faults.raise_first(tx, (record.fault for record in records), attempts_made + 1)

    def _fail(self, place: Place, attempts_made: int, failure: Failure, done: Recovered) -> None:
        delay = ISSUING.delay_after(attempts_made + 1)
        with self._engine.begin() as tx:
            for held in retries.take(tx, self._log, [place], attempts_made):
                request = self._reader.read(held.raw).request
                assert request is not None, "only a request that was read is ever held"
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
        locked = coupons.lock(tx, [request.coupon_id])
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
        return settle(coupon, requests.standby(tx, self._log, coupon.id))


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
    return [Range(partition, min(at), max(at)) for partition, at in sorted(offsets.items())]
