"""Dead letters that operators bring back or put away; every action once, and in the audit trail."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.dead_letter import DeadLetter, DeadLetterFilter, DeadLetterState
from service.domain.decide import Outcome, decide_replayed
from service.domain.errors import Conflict, NotFound
from service.domain.failures import Failure
from service.domain.request import ReasonCode, Request, RequestState
from service.domain.retry import ISSUE_RETRY_POLICY
from service.store import coupons, dead_letter_actions, fault_injection, requests, retries, write_probe
from service.store.engine import in_transaction, savepoint
from service.store.write_probe import ProbedWrite
from service.stream.codec import RecordReader
from service.usecases.batch_bisect import Failures, write_bisecting
from service.usecases.decision_writer import DecisionWriter

_AT_ONCE = 200
_DECIDED_ELSEWHERE = "its request has been decided as another record"


class ReplayResult(NamedTuple):
    """What a replay made of a dead letter, or would."""

    dead_letter_id: int
    request_id: str | None
    #: None: it cannot be replayed, `why` says so
    state: RequestState | None
    code: ReasonCode | None
    why: str | None = None


class _Ready(NamedTuple):
    """A dead letter that has a place in a log and can be read."""

    letter: DeadLetter
    log: int
    request: Request


_Decided = tuple[_Ready, Outcome]


class DeadLetterService:
    """Where dead letters are dealt with; `via` is the door it stands behind: api or cli."""

    def __init__(self, engine: Engine, reader: RecordReader, *, notices: bool, via: str) -> None:
        self._engine = engine
        self._reader = reader
        self._notices = notices
        self._via = via

    def replay(self, dead_letter_id: int) -> ReplayResult:
        """Brings one back: its rank is kept, whether it may have a seat is decided anew, and that is final again.

        A second call answers what came of the first. Raises Conflict when it was discarded or cannot be read, Missing,
        Unavailable.
        """
        found = self._replay([dead_letter_id], dry_run=False) or [
            self._before(dead_letter_id, DeadLetterState.REPLAYED)
        ]
        if found[0].why:
            raise Conflict("not_replayable", found[0].why)
        return found[0]

    def replay_many(self, filters: DeadLetterFilter, limit: int, *, dry_run: bool) -> list[ReplayResult]:
        """Brings back up to `limit` new ones in the order of their places; a dry run only says what would come of it.

        Killed in between, what is done is done, and the next call goes on behind it.
        """
        with in_transaction(self._engine) as tx:
            ids = dead_letter_actions.new_ids_in_order(tx, filters, limit)
        chunks = [ids] if dry_run else [ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE)]
        return [one for chunk in chunks if chunk for one in self._replay(chunk, dry_run=dry_run)]

    def discard(self, dead_letter_id: int) -> None:
        """Puts one away for good; a second call changes nothing. Raises Conflict when it was replayed, Missing."""
        with in_transaction(self._engine) as tx:
            locked = dead_letter_actions.lock(tx, [dead_letter_id])
            dead_letter_actions.record_actions(
                tx, DeadLetterState.DISCARDED, self._via, [(letter.id, None, None) for letter in locked]
            )
            crash_points.reach(CrashPoint.DISCARD_WRITTEN)
        crash_points.reach(CrashPoint.DISCARD_COMMITTED)
        if not locked:
            self._before(dead_letter_id, DeadLetterState.DISCARDED)

    def _before(self, dead_letter_id: int, wanted: DeadLetterState) -> ReplayResult:
        """What came of an action that was done before; raises Conflict when it was another one."""
        with in_transaction(self._engine) as tx:
            letter = dead_letter_actions.get(tx, dead_letter_id)
            done = dead_letter_actions.actions(tx, dead_letter_id)
        if letter is None:
            raise NotFound("unknown_dead_letter", f"there is no dead letter {dead_letter_id}")
        if letter.state is DeadLetterState.NEW:
            raise Conflict("changed", "it has died once more meanwhile: look at it, then ask again")
        if letter.state is not wanted:
            raise Conflict(letter.state, f"the dead letter has been {letter.state}")
        return ReplayResult(letter.id, letter.request_id, done[-1].state, done[-1].code)

    def _replay(self, ids: Sequence[int], *, dry_run: bool) -> list[ReplayResult]:
        with in_transaction(self._engine) as tx:
            replaying = _Replaying(tx, self._reader, self._via, notices=self._notices)
            replaying.run(dead_letter_actions.lock(tx, ids))
            if dry_run:
                tx.rollback()
            crash_points.reach(CrashPoint.REPLAY_WRITTEN)
        crash_points.reach(CrashPoint.REPLAY_COMMITTED)
        return replaying.done


class _Replaying:
    """A replay under way: its transaction, under the locks of the letters first and of their coupons then."""

    def __init__(self, tx: Connection, reader: RecordReader, via: str, *, notices: bool) -> None:
        self._tx = tx
        self._reader = reader
        self._via = via
        self._notices = notices
        self.done: list[ReplayResult] = []

    def run(self, locked: Sequence[DeadLetter]) -> None:
        """Decides all of them, in the order given."""
        ready = list(self._ready(locked))
        coupons.lock(self._tx, {one.request.coupon_id for one in ready})
        self._rows = DecisionWriter(self._tx, notices=self._notices)  # the moment of decision lies behind the lock
        write_bisecting(ready, self._decide, self._hold, self._failing)
        self._rows.write_outbox()

    def _ready(self, locked: Sequence[DeadLetter]) -> Iterator[_Ready]:
        """Those that have a rank here and can be read; of two records of one request the first."""
        seen: set[str] = set()
        for letter in locked:
            if (one := self._read(letter)) and one.request.request_id not in seen:
                seen.add(one.request.request_id)
                yield one
            elif one:
                self._skip(letter, _DECIDED_ELSEWHERE)

    def _read(self, dead_letter: DeadLetter) -> _Ready | None:
        """A record that nobody could read may be readable to a newer version; a foreign one has no rank here."""
        if dead_letter.log_id is None:
            self._skip(dead_letter, "another producer wrote it to the dead-letter topic: it has no place in the log")
            return None
        if dead_letter.request:
            return _Ready(dead_letter, dead_letter.log_id, dead_letter.request)
        record = self._reader.decode(dead_letter.raw)
        if record.request is None:
            self._skip(dead_letter, f"it still cannot be read: {record.poison}")
            return None
        if self._is_known(record.request):
            self._skip(dead_letter, _DECIDED_ELSEWHERE)
            return None
        return _Ready(dead_letter, dead_letter.log_id, record.request)

    def _is_known(self, request: Request) -> bool:
        return requests.find(self._tx, request.coupon_id, request.user_id, request.request_id) is not None

    def _skip(self, dead_letter: DeadLetter, why: str) -> None:
        self.done.append(ReplayResult(dead_letter.id, dead_letter.request_id, None, None, why))

    def _decide(self, some: Sequence[_Ready], failing: Failures) -> None:
        with savepoint(self._tx):
            decided = self._decided(some, failing)
            self._write(decided, failing)
            issued = (one.letter for one, outcome in decided if outcome.state is RequestState.ISSUED)
            fault_injection.raise_injected(self._tx, map(self._fault, issued))
        self._stand(decided)

    def _fault(self, dead_letter: DeadLetter) -> str | None:
        return fault_injection.raise_statement(self._reader.injected_fault(dead_letter.raw), dead_letter.attempts + 1)

    def _decided(self, some: Sequence[_Ready], failing: Failures) -> list[_Decided]:
        asked = [one.request for one in some]
        locked = coupons.get_many(self._tx, {request.coupon_id for request in asked})
        live = requests.live_request_ids(self._tx, {(request.coupon_id, request.user_id) for request in asked})
        return list(zip(some, decide_replayed(asked, locked, live, failing), strict=True))

    def _failing(self, some: Sequence[_Ready]) -> Failures:
        """Which of them cannot be issued though they are due a seat."""
        tried = [
            ProbedWrite(one.log, outcome, one.letter.request is None, self._fault(one.letter))
            for one, outcome in self._decided(some, {})
            if outcome.state is RequestState.ISSUED
        ]
        return write_probe.find_failing(self._tx, tried, self._rows.decided_at)

    def _hold(self, one: _Ready, failure: Failure) -> None:
        """A replay that fails by itself is a first failed attempt: its seat is held and the policy begins anew.

        One that is due no seat has none to hold: it stays the dead letter that it was.
        """
        failing = {one.request.request_id: failure}
        decided = self._decided([one], failing)
        if decided[0][1].state is RequestState.RETRYING:
            self._write(decided, failing)
            self._stand(decided)
        else:
            self._skip(one.letter, f"what was decided could not be written: {failure}")

    def _write(self, decided: Sequence[_Decided], failing: Failures) -> None:
        """A statement for each stretch of requests that are written alike, so that sequences follow each other."""
        for (log, has_row, waits), alike in groupby(decided, _kind):
            stretch = list(alike)
            outcomes = [outcome for _, outcome in stretch]
            if has_row:
                self._rows.update(log, outcomes, attempts_added=0 if waits else 1)
            else:
                requests.insert(self._tx, log, requests.insert_columns(outcomes), self._rows.decided_at)
                dead_letter_actions.set_requests(self._tx, {one.letter.id: one.request for one, _ in stretch})
            if waits:
                retries.insert_standby(self._tx, log, [one.letter.raw for one, _ in stretch])
            held = [one for one, outcome in stretch if outcome.state is RequestState.RETRYING]
            due_at = self._rows.decided_at + timedelta(seconds=ISSUE_RETRY_POLICY.delay_seconds)
            retries.insert(self._tx, log, [(one.letter.raw, failing[one.request.request_id]) for one in held], due_at)
        came = [(one.letter.id, outcome.state, outcome.code) for one, outcome in decided]
        dead_letter_actions.record_actions(self._tx, DeadLetterState.REPLAYED, self._via, came)

    def _stand(self, decided: Sequence[_Decided]) -> None:
        for one, outcome in decided:
            self._rows.mark_final(one.log, [outcome])
            self.done.append(ReplayResult(one.letter.id, outcome.request.request_id, outcome.state, outcome.code))


def _kind(decided: _Decided) -> tuple[int, bool, bool]:
    """Which log it is of, whether its request has a row already, and whether it waits for a seat."""
    one, outcome = decided
    return one.log, one.letter.request is not None, outcome.state is RequestState.STANDBY
