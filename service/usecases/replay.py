"""Replays and discards dead letters; each action happens once and is recorded in the audit trail."""

from collections.abc import Sequence
from copy import copy
from datetime import timedelta
from itertools import groupby, islice
from operator import itemgetter
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from service import crash_points
from service.cancellation import Cancellation
from service.crash_points import CrashPoint
from service.domain.dead_letter import (
    DeadLetter,
    DeadLetterAction,
    DeadLetterFilter,
    DeadLetterState,
    DeadLetterSummary,
)
from service.domain.decide import Outcome, decide_replayed
from service.domain.error_code import ErrorCode
from service.domain.errors import Conflict, NotFound
from service.domain.failures import Failure
from service.domain.request import ReasonCode, Request, RequestState
from service.domain.retry import ISSUE_RETRY_POLICY
from service.gate.gate_admin import GateAdmin
from service.limits import MAX_REPLAY_BYTES
from service.store import coupons, dead_letter_actions, failed_attempts, logs, requests, retries, write_probe
from service.store.engine import in_transaction, savepoint
from service.store.failed_attempts import FailedAttempt
from service.store.raw_records import split_by_bytes
from service.store.write_probe import ProbedWrite
from service.stream.codec import RecordReader
from service.usecases import follow_up
from service.usecases.batch_bisect import Failures, write_bisecting
from service.usecases.decision_writer import DecisionWriter
from service.usecases.follow_up import FollowUp
from service.usecases.write_plan import HeldFailure

_BATCH_SIZE = 200
_DECIDED_ELSEWHERE = "Another record of the same request has been decided."


class ReplayResult(NamedTuple):
    """What a replay did with a dead letter, or would do."""

    dead_letter_id: int
    request_id: str | None
    #: None: it cannot be replayed, and `why` gives the reason
    state: RequestState | None
    code: ReasonCode | None
    why: str | None = None


class _Replayable(NamedTuple):
    """A dead letter that has a log position and can be decoded."""

    dead_letter: DeadLetter
    log_id: int
    request: Request

    @property
    def attempts(self) -> int:
        """The attempts that were made; reading a record that could not be decoded was none."""
        return self.dead_letter.summary.attempts if self.dead_letter.request else 0


_Decided = tuple[_Replayable, Outcome]


class DeadLetterService:
    """Operators' actions on dead letters; the audit trail records `acted_by`."""

    def __init__(
        self, engine: Engine, reader: RecordReader, gate_admin: GateAdmin, *, notices: bool, acted_by: str
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._gate_admin = gate_admin
        self._notices = notices
        self.acted_by = acted_by

    def acting_as(self, name: str) -> "DeadLetterService":
        """Return the same actions for another caller, whose name the audit trail records."""
        other = copy(self)
        other.acted_by = name
        return other

    def replay(self, dead_letter_id: int, *, dry_run: bool = False) -> ReplayResult:
        """Decide the request again under its original offset: issued, refused, on standby, or held and retried.

        A dry run changes nothing. A repeated call returns the result of the latest replay. Raises Conflict when it was
        discarded, cannot be replayed or became dead again meanwhile, NotFound, and Unavailable.
        """
        results = self._replay([dead_letter_id], dry_run=dry_run)
        result = results[0] if results else self._earlier_result(dead_letter_id, DeadLetterState.REPLAYED)
        if result.why:
            raise Conflict(ErrorCode.NOT_REPLAYABLE, result.why)
        return result

    def replay_many(
        self, filters: DeadLetterFilter, limit: int, *, dry_run: bool, cancellation: Cancellation | None = None
    ) -> list[ReplayResult]:
        """Replay up to `limit` new dead letters in log order; a dry run changes nothing.

        After a crash the committed batches remain; the next call replays the others. A dry run is one batch: it ends
        before the records have more than MAX_REPLAY_BYTES. `cancellation` ends the call between two batches.
        """
        with in_transaction(self._engine) as tx:
            found = dead_letter_actions.new_ids_in_order(tx, filters, limit)
        batches = split_by_bytes(found, itemgetter(1), MAX_REPLAY_BYTES, limit if dry_run else _BATCH_SIZE)
        if dry_run:
            batches = islice(batches, 1)
        results: list[ReplayResult] = []
        for batch in batches:
            if cancellation:
                cancellation.check()
            results += self._replay([dead_letter_id for dead_letter_id, _ in batch], dry_run=dry_run)
        return results

    def discard(self, dead_letter_id: int) -> None:
        """Close a dead letter; a repeated call changes nothing. Raises Conflict when it was replayed, and NotFound."""
        with in_transaction(self._engine) as tx:
            locked = dead_letter_actions.lock(tx, [dead_letter_id])
            results = [(one.summary.id, None, None) for one in locked]
            dead_letter_actions.record_actions(tx, DeadLetterState.DISCARDED, self.acted_by, results)
            crash_points.reach(CrashPoint.DISCARD_WRITTEN)
        crash_points.reach(CrashPoint.DISCARD_COMMITTED)
        if not locked:
            self._earlier_result(dead_letter_id, DeadLetterState.DISCARDED)

    def _replay(self, ids: Sequence[int], *, dry_run: bool) -> list[ReplayResult]:
        with in_transaction(self._engine) as tx:
            transaction = _ReplayTransaction(tx, self._reader, self.acted_by, notices=self._notices)
            transaction.run(dead_letter_actions.lock(tx, ids))
            if dry_run:
                tx.rollback()
            crash_points.reach(CrashPoint.REPLAY_WRITTEN)
        crash_points.reach(CrashPoint.REPLAY_COMMITTED)
        if not dry_run:
            follow_up.publish(self._gate_admin, transaction.follow_up)
        return transaction.results

    def _earlier_result(self, dead_letter_id: int, wanted: DeadLetterState) -> ReplayResult:
        """Return the result of an earlier action; raise Conflict when it was another action."""
        (current, _), actions = self.get(dead_letter_id)
        if current.state is DeadLetterState.NEW:
            raise Conflict(
                ErrorCode.CHANGED, "The request became dead again meanwhile. Read the dead letter, then repeat."
            )
        if current.state is not wanted:
            raise Conflict(ErrorCode(current.state), f"The dead letter has been {current.state}.")
        return ReplayResult(dead_letter_id, current.request_id, actions[-1].state, actions[-1].code)

    def get(self, dead_letter_id: int) -> tuple[DeadLetter, list[DeadLetterAction]]:
        """Return a dead letter and the actions taken on it, oldest first; raise NotFound or Unavailable."""
        with in_transaction(self._engine) as tx:
            dead_letter = dead_letter_actions.get(tx, dead_letter_id)
            actions = dead_letter_actions.actions(tx, dead_letter_id)
        if dead_letter is None:
            raise NotFound(ErrorCode.UNKNOWN_DEAD_LETTER, f"There is no dead letter {dead_letter_id}.")
        return dead_letter, actions

    def list_page(self, filters: DeadLetterFilter, before_id: int | None, limit: int) -> list[DeadLetterSummary]:
        """Return up to `limit` dead letters that match, with ids below `before_id`, newest first; raise Unavailable."""
        with in_transaction(self._engine) as tx:
            return dead_letter_actions.page(tx, filters, before_id, limit)


class _ReplayTransaction:
    """The transaction of a replay. It holds the locks of the dead letters first, then those of their coupons."""

    def __init__(self, tx: Connection, reader: RecordReader, acted_by: str, *, notices: bool) -> None:
        self._tx = tx
        self._reader = reader
        self.acted_by = acted_by
        self._notices = notices
        self.results: list[ReplayResult] = []
        self.follow_up = FollowUp()

    def run(self, locked: Sequence[DeadLetter]) -> None:
        """Decide the dead letters in the order given.

        If two of them carry the same request id, replay the first and skip the second.
        """
        replayable: list[_Replayable] = []
        seen: set[str] = set()
        for dead_letter in locked:
            one = self._prepare(dead_letter)
            if one and one.request.request_id in seen:
                self._skip(dead_letter, _DECIDED_ELSEWHERE)
            elif one:
                seen.add(one.request.request_id)
                replayable.append(one)
        coupons.lock(self._tx, {one.request.coupon_id for one in replayable})
        self._writer = DecisionWriter(self._tx, notices=self._notices)
        write_bisecting(replayable, self.write, self.write_failed, self.find_failing)
        self.follow_up.outbox_kinds = self._writer.write_outbox()

    def _prepare(self, dead_letter: DeadLetter) -> _Replayable | None:
        """Return the dead letter with its request, or skip it.

        This version may decode a record that earlier versions could not. A foreign dead letter has no log position.
        """
        log_id = dead_letter.summary.log_id
        if log_id is None:
            self._skip(
                dead_letter, "Another producer wrote it to the dead-letter topic, so it has no offset in the log."
            )
            return None
        if dead_letter.request:
            return _Replayable(dead_letter, log_id, dead_letter.request)
        record = self._reader.decode(dead_letter.raw, logs.topic_ids(self._tx)[log_id])
        request = record.request
        if request is None:
            self._skip(dead_letter, f"It still cannot be decoded: {record.poison}.")
            return None
        if requests.find_many(self._tx, [(request.coupon_id, request.user_id, request.request_id)]):
            self._skip(dead_letter, _DECIDED_ELSEWHERE)
            return None
        return _Replayable(dead_letter, log_id, request)

    def _skip(self, dead_letter: DeadLetter, why: str) -> None:
        self.results.append(ReplayResult(dead_letter.summary.id, dead_letter.summary.request_id, None, None, why))

    def write(self, replayable: Sequence[_Replayable], failing: Failures) -> None:
        """Decide and write together. If the database raises, roll back to the savepoint and re-raise the error."""
        with savepoint(self._tx):
            decided = self._decide(replayable, failing)
            self._store(decided, failing)
            issued = [one.dead_letter for one, outcome in decided if outcome.state is RequestState.ISSUED]
            write_probe.raise_injected(self._tx, map(self._injected_fault, issued))
        self._finish(decided, failing)

    def write_failed(self, one: _Replayable, failure: Failure) -> None:
        """Hold the seat of a request whose own write failed. It counts as a first failed attempt.

        A request that is not entitled to a seat has none to hold: it stays the dead letter it was.
        """
        failing = {one.request.request_id: failure}
        decided = self._decide([one], failing)
        if decided[0][1].state is RequestState.RETRYING:
            self._store(decided, failing)
            self._finish(decided, failing)
        else:
            self._skip(one.dead_letter, f"The decision could not be written: {failure}.")

    def find_failing(self, replayable: Sequence[_Replayable]) -> Failures:
        """Return which requests cannot be issued although they are entitled to a seat."""
        probed = [
            ProbedWrite(one.log_id, outcome, one.dead_letter.request is None, self._injected_fault(one.dead_letter))
            for one, outcome in self._decide(replayable, {})
            if outcome.state is RequestState.ISSUED
        ]
        return write_probe.find_failing(self._tx, probed, self._writer.decided_at)

    def _decide(self, replayable: Sequence[_Replayable], failing: Failures) -> list[_Decided]:
        asked = [one.request for one in replayable]
        locked = coupons.get_many(self._tx, {request.coupon_id for request in asked})
        live = requests.live_request_ids(self._tx, {(request.coupon_id, request.user_id) for request in asked})
        return list(zip(replayable, decide_replayed(asked, locked, live, failing), strict=True))

    def _store(self, decided: Sequence[_Decided], failing: Failures) -> None:
        """Write decisions in order: one statement per group of consecutive requests of the same kind."""
        first_retry_at = self._writer.decided_at + timedelta(seconds=ISSUE_RETRY_POLICY.delay_seconds)
        kinds = [
            (one.log_id, one.dead_letter.request is not None, outcome.state is RequestState.STANDBY)
            for one, outcome in decided
        ]
        for (log_id, has_row, waits), group in groupby(zip(kinds, decided, strict=True), lambda pair: pair[0]):
            alike = [pair for _, pair in group]
            outcomes = [outcome for _, outcome in alike]
            if has_row:
                self._writer.update(log_id, outcomes, attempts_added=0 if waits else 1)
            else:
                requests.insert(self._tx, log_id, requests.insert_columns(outcomes), self._writer.decided_at)
                dead_letter_actions.set_requests(
                    self._tx, {one.dead_letter.summary.id: one.request for one, _ in alike}
                )
            if waits:
                retries.insert_standby(self._tx, log_id, [one.dead_letter.raw for one, _ in alike])
            held = [one for one, outcome in alike if outcome.state is RequestState.RETRYING]
            failed = [(one.dead_letter.raw, failing[one.request.request_id]) for one in held]
            retries.insert(self._tx, log_id, failed, first_retry_at)
            attempts = [
                FailedAttempt(raw.log_position, one.attempts + 1, failure)
                for one, (raw, failure) in zip(held, failed, strict=True)
            ]
            failed_attempts.insert(self._tx, log_id, attempts, self._writer.decided_at)
        results = [(one.dead_letter.summary.id, outcome.state, outcome.code) for one, outcome in decided]
        dead_letter_actions.record_actions(self._tx, DeadLetterState.REPLAYED, self.acted_by, results)

    def _finish(self, decided: Sequence[_Decided], failing: Failures) -> None:
        """Record outcomes whose savepoint was released."""
        for one, outcome in decided:
            if outcome.state is RequestState.RETRYING:
                held = HeldFailure(one.request.coupon_id, failing[one.request.request_id])
                self.follow_up.hold(one.log_id, one.request.log_position, 1, held)
            self._writer.add_outcomes(one.log_id, [outcome])
            result = ReplayResult(one.dead_letter.summary.id, outcome.request.request_id, outcome.state, outcome.code)
            self.results.append(result)

    def _injected_fault(self, dead_letter: DeadLetter) -> str | None:
        return write_probe.raise_statement(
            self._reader.injected_fault(dead_letter.raw), dead_letter.summary.attempts + 1
        )
