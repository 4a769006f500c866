"""Model of service/usecases/recover.py: the same order of effects, the same pure functions."""

from collections.abc import Iterable, Sequence

from service.domain.decide import Outcome, StandbyAction, issue_seated, next_standby_action
from service.domain.failures import Failure
from service.domain.request import LogPosition, ReasonCode, Request, RequestState
from service.domain.retry import ISSUE_RETRY_POLICY
from service.usecases.batch_bisect import Failures, probe_then_write, write_bisecting
from tests.unit.model.database import Database
from tests.unit.model.write_failures import InjectedFailures


def retry(
    db: Database,
    positions: Iterable[LogPosition],
    attempts_made: int,
    failures: InjectedFailures,
    max_standby: int,
) -> None:
    """Retry held requests that have made exactly `attempts_made`; then decide at most `max_standby` on standby."""
    with db.transaction():
        taken = [position for position in sorted(positions) if db.retries.get(position) == attempts_made]
        recovery = _Recovery(db, failures)
        recovery.retry(taken)
        recovery.decide_standby({db.rows[position].request.coupon_id for position in taken}, max_standby)


def decide_standby(db: Database, coupon_id: int, failures: InjectedFailures, max_standby: int) -> None:
    """Decide the standby requests of a coupon that can be decided now, at most `max_standby`."""
    with db.transaction():
        _Recovery(db, failures).decide_standby([coupon_id], max_standby)


class _Recovery:
    def __init__(self, db: Database, failures: InjectedFailures) -> None:
        self._db = db
        self._failures = failures

    def retry(self, positions: Sequence[LogPosition]) -> None:
        probe_then_write(positions, self._write, self._write_failed, self._probe)

    def decide_standby(self, coupon_ids: Iterable[int], budget: int) -> None:
        for coupon_id in sorted(coupon_ids):
            while budget > 0 and (decided := self._decide_some_standby(coupon_id, budget)):
                budget -= decided

    def _decide_some_standby(self, coupon_id: int, limit: int) -> int:
        coupon = self._db.coupon(coupon_id)
        action = next_standby_action(coupon)
        if action is StandbyAction.WAIT:
            return 0
        if action is StandbyAction.PROMOTE:
            limit = min(limit, coupon.remaining)
        rows = self._db.rows_of(coupon_id)
        first = [row.request.log_position for row in rows if row.state is RequestState.STANDBY][:limit]
        if action is StandbyAction.PROMOTE:
            write_bisecting(first, self._write, self._write_failed, self._probe)
        else:
            self._finish(Outcome(one, RequestState.REFUSED, ReasonCode.SOLD_OUT) for one in self._requests(first))
        return len(first)

    def _requests(self, positions: Iterable[LogPosition]) -> list[Request]:
        return [self._db.rows[position].request for position in positions]

    def _issue(self, positions: Sequence[LogPosition]) -> list[Outcome]:
        requests = self._requests(positions)
        return issue_seated(requests, self._db.coupons(requests))

    def _write(self, positions: Sequence[LogPosition], failed: Failures) -> None:
        with self._db.transaction():
            failed_positions = [at for at in positions if self._db.rows[at].request.request_id in failed]
            outcomes = self._issue([position for position in positions if position not in failed_positions])
            self._finish(outcomes)
            self._failures.raise_for(outcomes)
            for position in failed_positions:
                self._count_failed_attempt(position)

    def _write_failed(self, position: LogPosition, failure: Failure) -> None:
        self._write([position], {self._db.rows[position].request.request_id: failure})

    def _probe(self, positions: Sequence[LogPosition]) -> Failures:
        return self._failures.probe(self._issue(positions))

    def _count_failed_attempt(self, position: LogPosition) -> None:
        request, attempts = self._db.rows[position].request, self._db.retries[position] + 1
        if ISSUE_RETRY_POLICY.delay_after(attempts) is None:
            self._finish([Outcome(request, RequestState.DEAD, ReasonCode.EXHAUSTED)])
            self._db.add_dead_letter(position, request)
            return
        self._db.retries[position] = attempts
        self._db.write([Outcome(request, RequestState.RETRYING)], attempts=1)

    def _finish(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            self._db.write([outcome], attempts=1)
            del self._db.retries[outcome.request.log_position]
