"""What service/usecases/recover.py does to the database, in its order and with the same pure functions."""

from collections.abc import Iterable, Sequence

from service.domain.decide import Outcome, StandbyAction, issue_seated, next_standby_action
from service.domain.failures import Failure
from service.domain.request import LogPosition, ReasonCode, Request, RequestState
from service.domain.retry import ISSUE_RETRY_POLICY
from service.usecases.batch_bisect import Failures, probe_then_write, write_bisecting
from tests.unit.world.database import Database
from tests.unit.world.trouble import Troubles


def retry(db: Database, places: Iterable[LogPosition], attempts_made: int, troubles: Troubles, at_once: int) -> None:
    """One more attempt for those that have had exactly so many; then `at_once` on standby at most are decided."""
    with db.transaction():
        taken = [place for place in sorted(places) if db.retries.get(place) == attempts_made]
        attempt = _Attempt(db, troubles)
        attempt.again(taken)
        attempt.settle({db.rows[place].request.coupon_id for place in taken}, at_once)


def settle(db: Database, coupon_id: int, troubles: Troubles, at_once: int) -> None:
    """Decides those on standby as far as can be decided now, `at_once` at most."""
    with db.transaction():
        _Attempt(db, troubles).settle([coupon_id], at_once)


class _Attempt:
    def __init__(self, db: Database, troubles: Troubles) -> None:
        self._db = db
        self._troubles = troubles

    def again(self, log_positions: Sequence[LogPosition]) -> None:
        probe_then_write(log_positions, self._write, self._give_way, self._failing)

    def _promote(self, log_positions: Sequence[LogPosition]) -> None:
        write_bisecting(log_positions, self._write, self._give_way, self._failing)

    def settle(self, coupon_ids: Iterable[int], budget: int) -> None:
        for coupon_id in sorted(coupon_ids):
            while budget > 0 and (decided := self._take_turn(coupon_id, budget)):
                budget -= decided

    def _asked(self, places: Iterable[LogPosition]) -> list[Request]:
        return [self._db.rows[place].request for place in places]

    def _write(self, log_positions: Sequence[LogPosition], failing: Failures) -> None:
        with self._db.transaction():
            failed = [place for place in log_positions if self._db.rows[place].request.request_id in failing]
            outcomes = self._seat([place for place in log_positions if place not in failed])
            self._end(outcomes)
            self._troubles.strike(outcomes)
            for place in failed:
                self._fail(place)

    def _give_way(self, log_position: LogPosition, failure: Failure) -> None:
        self._write([log_position], {self._db.rows[log_position].request.request_id: failure})

    def _seat(self, log_positions: Sequence[LogPosition]) -> list[Outcome]:
        asked = self._asked(log_positions)
        return issue_seated(asked, self._db.coupons(asked))

    def _failing(self, log_positions: Sequence[LogPosition]) -> Failures:
        return self._troubles.tell(self._seat(log_positions))

    def _fail(self, log_position: LogPosition) -> None:
        (request,), made = self._asked([log_position]), self._db.retries[log_position] + 1
        if ISSUE_RETRY_POLICY.delay_after(made) is None:
            self._end([Outcome(request, RequestState.DEAD, ReasonCode.EXHAUSTED)])
            self._db.bury(log_position, request)
            return
        self._db.retries[log_position] = made
        self._db.write([Outcome(request, RequestState.RETRYING)], spent=1)

    def _end(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._db.write([outcome], spent=1)
            del self._db.retries[outcome.request.log_position]

    def _take_turn(self, coupon_id: int, limit: int) -> int:
        coupon = self._db.coupon(coupon_id)
        now = next_standby_action(coupon)
        if now is StandbyAction.WAIT:
            return 0
        most = min(limit, coupon.remaining) if now is StandbyAction.PROMOTE else limit
        first = [row.request.log_position for row in self._db.of(coupon_id) if row.state is RequestState.STANDBY][:most]
        if now is StandbyAction.PROMOTE:
            self._promote(first)
        else:
            self._end(Outcome(request, RequestState.REFUSED, ReasonCode.SOLD_OUT) for request in self._asked(first))
        return len(first)
