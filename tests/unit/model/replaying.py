"""Model of service/usecases/replay.py: the same order of effects, the same pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from service.domain.dead_letter import DeadLetterState
from service.domain.decide import Outcome, decide_replayed
from service.domain.failures import Failure
from service.domain.request import LogPosition, Request, RequestState
from service.usecases.batch_bisect import Failures, write_bisecting
from tests.unit.model.database import Database, DeadLetter, pair_of
from tests.unit.model.write_failures import InjectedFailures


def new_dead_letters(db: Database) -> list[LogPosition]:
    """Return the log positions of dead letters that were neither replayed nor discarded, in order."""
    return sorted(position for position, letter in db.dead_letters.items() if letter.state is DeadLetterState.NEW)


def replay(
    db: Database,
    positions: Iterable[LogPosition],
    readable: Mapping[LogPosition, Request],
    failures: InjectedFailures,
) -> None:
    """Replay new dead letters; `readable` has the requests of poison records that can be read by now."""
    with db.transaction():
        write_bisecting(
            [*_requests(db, positions, readable)],
            partial(_write_all, db, failures),
            partial(_write_failed, db),
            partial(_probe, db, failures),
        )


def discard(db: Database, positions: Iterable[LogPosition]) -> None:
    """Discard new dead letters."""
    for position in positions:
        db.dead_letters[position] = db.dead_letters[position]._replace(state=DeadLetterState.DISCARDED)


def _requests(
    db: Database, positions: Iterable[LogPosition], readable: Mapping[LogPosition, Request]
) -> Iterator[Request]:
    """Yield the requests of the dead letters; a poison record that repeats a request is left out."""
    decoded: set[str] = set()
    for position in positions:
        if request := db.dead_letters[position].request:
            yield request
        elif request := readable.get(position):
            prior = db.prior_requests([request])[pair_of(request)].request_ids
            if request.request_id not in prior | decoded:
                decoded.add(request.request_id)
                yield request


def _outcomes(db: Database, requests: Sequence[Request], failed: Failures) -> list[Outcome]:
    return decide_replayed(requests, db.coupons(requests), db.live(requests), failed)


def _write_all(db: Database, failures: InjectedFailures, requests: Sequence[Request], failed: Failures) -> None:
    with db.transaction():
        outcomes = _outcomes(db, requests, failed)
        for request, outcome in zip(requests, outcomes, strict=True):
            _write(db, outcome._replace(request=request))
        failures.raise_for(outcomes)


def _probe(db: Database, failures: InjectedFailures, requests: Sequence[Request]) -> Failures:
    return failures.probe(outcome for outcome in _outcomes(db, requests, {}) if outcome.state is RequestState.ISSUED)


def _write_failed(db: Database, request: Request, failure: Failure) -> None:
    (outcome,) = _outcomes(db, [request], {request.request_id: failure})
    if outcome.state is RequestState.RETRYING:
        _write(db, outcome._replace(request=request))


def _write(db: Database, outcome: Outcome) -> None:
    position = outcome.request.log_position
    db.write([outcome], attempts=outcome.state is not RequestState.STANDBY)
    if outcome.state in (RequestState.STANDBY, RequestState.RETRYING):
        db.retries[position] = int(outcome.state is RequestState.RETRYING)
    db.dead_letters[position] = DeadLetter(outcome.request, DeadLetterState.REPLAYED, replayed=True)
