"""What the use cases do to the database, in their order and with the same pure functions."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.domain.change import changed
from service.domain.decide import Outcome, Turn, decide, replay, seat, turn
from service.domain.errors import Fenced
from service.domain.fates import Failure
from service.domain.letter import LetterState
from service.domain.record import Record
from service.domain.request import Code, Place, Request, State
from service.domain.retry import ISSUING
from service.usecases.plan import Plan, moves_of
from service.usecases.segments import in_segments
from tests.unit.world.database import LOG, Database, Letter, pair_of
from tests.unit.world.trouble import Troubles


class Deeds:
    """Each public method is one transaction, or several where the use case has several."""

    def __init__(self, db: Database, partitions: Mapping[int, int], poison: Mapping[Place, Request]) -> None:
        self._db = db
        self._partitions = partitions
        #: what records that nobody can read yet ask for
        self._poison = poison

    def issue(self, records: Sequence[Record], positions: dict[int, int], troubles: Troubles) -> None:
        """service/usecases/issue.py; raises Fenced, and ConnectionError when the system fails."""
        moves = moves_of(records, positions)
        with self._db.transaction():
            if fenced := self._db.advance(moves):
                raise Fenced(fenced)
            in_segments(records, lambda some: self._write(some, troubles), self._give_way)

    def retry(self, places: Sequence[Place], attempts_made: int, troubles: Troubles, at_once: int) -> None:
        """service/usecases/recover.py: one more attempt for those that have had exactly so many."""
        with self._db.transaction():
            taken = [place for place in sorted(places) if self._db.retries.get(place) == attempts_made]
            self._make(taken, troubles)
            self._settle(sorted({self._request(place).coupon_id for place in taken}), troubles, at_once)

    def settle(self, coupon_id: int, troubles: Troubles, at_once: int) -> None:
        """The same: decides those on standby as far as can be decided, `at_once` at most."""
        with self._db.transaction():
            self._settle([coupon_id], troubles, at_once)

    def change(self, coupon_id: int, values: dict[str, Any]) -> None:
        """service/usecases/change.py, without what it does after its commit; raises Conflict."""
        coupon = self._db.coupon(coupon_id)
        new = changed(coupon, values)
        if new == coupon:
            return
        since = (LOG, self._db.offsets[self._partitions[coupon_id]])
        self._db.values[coupon_id] = new._replace(issued=0, held=0, standby=0)
        self._db.record(new, since)

    def replay(self, places: Sequence[Place], troubles: Troubles, *, readable: bool) -> None:
        """service/usecases/replay.py: brings back dead letters that nobody acted on; poison, if it can be read now."""
        with self._db.transaction():
            in_segments([*self._read(places, readable=readable)], lambda some: self._revive(some, troubles), self._hold)

    def discard(self, place: Place) -> None:
        """The same: puts one away."""
        letter = self._db.letters[place]
        if letter.state is LetterState.NEW:
            self._db.letters[place] = letter._replace(state=LetterState.DISCARDED)

    def _request(self, place: Place) -> Request:
        return self._db.rows[place].request

    def _plan(self, records: Sequence[Record]) -> Plan:
        asked = [record.request for record in records if record.request]
        locked = self._db.coupons(asked)
        return Plan(records, locked, decide(asked, locked, self._db.known(asked)))

    def _write(self, records: Sequence[Record], troubles: Troubles) -> None:
        with self._db.transaction():
            plan = self._plan(records)
            self._store(plan)
            troubles.strike(plan.outcomes)

    def _give_way(self, record: Record, failure: Failure) -> None:
        plan = self._plan([record])
        plan.fail(failure)
        self._store(plan)

    def _store(self, plan: Plan) -> None:
        self._db.write(plan.outcomes)
        self._db.retries |= {raw.place: 1 for raw, _ in plan.held} | {raw.place: 0 for raw in plan.standby()}
        for dead in plan.dead:
            self._db.bury(dead.raw.place, dead.request)

    def _make(self, places: Sequence[Place], troubles: Troubles) -> None:
        in_segments(places, lambda some: self._seat(some, troubles), self._fail)

    def _seat(self, places: Sequence[Place], troubles: Troubles) -> None:
        asked = [self._request(place) for place in places]
        with self._db.transaction():
            outcomes = seat(asked, self._db.coupons(asked))
            self._db.write(outcomes, spent=1)
            self._forget(places)
            troubles.strike(outcomes)

    def _forget(self, places: Sequence[Place]) -> None:
        for place in places:
            del self._db.retries[place]

    def _fail(self, place: Place, _: Failure) -> None:
        made = self._db.retries[place] + 1
        if ISSUING.delay_after(made) is not None:
            self._db.retries[place] = made
            self._db.write([Outcome(self._request(place), State.RETRYING)], spent=1)
            return
        self._db.write([Outcome(self._request(place), State.DEAD, Code.EXHAUSTED)], spent=1)
        self._db.bury(place, self._request(place))
        self._forget([place])

    def _settle(self, coupon_ids: Sequence[int], troubles: Troubles, budget: int) -> None:
        for coupon_id in coupon_ids:
            while budget > 0 and (decided := self._take_turn(coupon_id, budget, troubles)):
                budget -= decided

    def _take_turn(self, coupon_id: int, limit: int, troubles: Troubles) -> int:
        coupon = self._db.coupon(coupon_id)
        now = turn(coupon)
        if now is Turn.WAIT:
            return 0
        most = min(limit, coupon.remaining) if now is Turn.PROMOTE else limit
        first = [row.request.place for row in self._db.of(coupon_id) if row.state is State.STANDBY][:most]
        if now is Turn.PROMOTE:
            self._make(first, troubles)
        else:
            self._refuse(first)
        return len(first)

    def _refuse(self, places: Sequence[Place]) -> None:
        outcomes = [Outcome(self._request(place), State.REFUSED, Code.SOLD_OUT) for place in places]
        self._db.write(outcomes, spent=1)
        self._forget(places)

    def _read(self, places: Sequence[Place], *, readable: bool) -> Iterator[Request]:
        letters = {place: self._db.letters[place] for place in sorted(places)}
        seen: set[str] = set()
        for place, letter in letters.items():
            if letter.state is LetterState.NEW:
                if letter.request:
                    yield letter.request
                elif readable and not self._is_known(self._poison[place], seen):
                    seen.add(self._poison[place].request_id)
                    yield self._poison[place]

    def _is_known(self, request: Request, seen: set[str]) -> bool:
        return request.request_id in self._db.known([request])[pair_of(request)].request_ids | seen

    def _replayed(self, asked: Sequence[Request]) -> list[Outcome]:
        return replay(asked, self._db.coupons(asked), self._db.live(asked))

    def _revive(self, asked: Sequence[Request], troubles: Troubles) -> None:
        with self._db.transaction():
            outcomes = self._replayed(asked)
            for request, outcome in zip(asked, outcomes, strict=True):
                self._revived(request, outcome)
            troubles.strike(outcomes)

    def _hold(self, request: Request, _: Failure) -> None:
        (outcome,) = self._replayed([request])
        if outcome.state is State.ISSUED:
            self._revived(request, Outcome(request, State.RETRYING))
            self._db.retries[request.place] = 1

    def _revived(self, request: Request, outcome: Outcome) -> None:
        self._db.write([outcome._replace(request=request)], spent=outcome.state is not State.STANDBY)
        if outcome.state is State.STANDBY:
            self._db.retries[request.place] = 0
        self._db.letters[request.place] = Letter(request, LetterState.REPLAYED, replayed=True)
