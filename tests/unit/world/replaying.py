"""What service/usecases/replay.py does to the database, in its order and with the same pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from service.domain.dead_letter import DeadLetterState
from service.domain.decide import Outcome, decide_replayed
from service.domain.failures import Failure
from service.domain.request import LogPosition, Request, RequestState
from service.usecases.batch_bisect import Failures, write_bisecting
from tests.unit.world.database import Database, Letter, pair_of
from tests.unit.world.trouble import Troubles


def untouched(db: Database) -> list[LogPosition]:
    """Places of the dead letters that nobody acted on, in order."""
    return sorted(place for place, letter in db.letters.items() if letter.state is DeadLetterState.NEW)


def bring_back(
    db: Database, places: Iterable[LogPosition], poison: Mapping[LogPosition, Request], troubles: Troubles
) -> None:
    """Replays untouched dead letters; `poison`: what those ask for that nobody could read, if it can be read by now."""
    with db.transaction():
        decide, failing = partial(_decide, db, troubles), partial(_failing, db, troubles)
        write_bisecting([*_read(db, places, poison)], decide, partial(_hold, db), failing)


def discard(db: Database, places: Iterable[LogPosition]) -> None:
    """Puts untouched dead letters away."""
    for place in places:
        db.letters[place] = db.letters[place]._replace(state=DeadLetterState.DISCARDED)


def _read(db: Database, places: Iterable[LogPosition], poison: Mapping[LogPosition, Request]) -> Iterator[Request]:
    deciphered: set[str] = set()
    for place in places:
        if request := db.letters[place].request:
            yield request
        elif place in poison and not _is_known(db, poison[place], deciphered):
            deciphered.add(poison[place].request_id)
            yield poison[place]


def _is_known(db: Database, request: Request, deciphered: set[str]) -> bool:
    return request.request_id in db.known([request])[pair_of(request)].request_ids | deciphered


def _outcomes(db: Database, asked: Sequence[Request], failing: Failures) -> list[Outcome]:
    return decide_replayed(asked, db.coupons(asked), db.live(asked), failing)


def _decide(db: Database, troubles: Troubles, asked: Sequence[Request], failing: Failures) -> None:
    with db.transaction():
        outcomes = _outcomes(db, asked, failing)
        for request, outcome in zip(asked, outcomes, strict=True):
            _write(db, outcome._replace(request=request))
        troubles.strike(outcomes)


def _failing(db: Database, troubles: Troubles, asked: Sequence[Request]) -> Failures:
    return troubles.tell(outcome for outcome in _outcomes(db, asked, {}) if outcome.state is RequestState.ISSUED)


def _hold(db: Database, request: Request, failure: Failure) -> None:
    (outcome,) = _outcomes(db, [request], {request.request_id: failure})
    if outcome.state is RequestState.RETRYING:
        _write(db, outcome._replace(request=request))


def _write(db: Database, outcome: Outcome) -> None:
    place = outcome.request.log_position
    db.write([outcome], spent=outcome.state is not RequestState.STANDBY)
    if outcome.state in (RequestState.STANDBY, RequestState.RETRYING):
        db.retries[place] = int(outcome.state is RequestState.RETRYING)
    db.letters[place] = Letter(outcome.request, DeadLetterState.REPLAYED, replayed=True)
