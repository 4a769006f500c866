"""Proves P1 to P5 from the log's first record, the database, and what clients were answered."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import NamedTuple

from sqlalchemy import Connection, Engine, text

from service.cancellation import Cancellation
from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.request import ReasonCode
from service.domain.request_id import RequestIds
from service.store import checkpoints, engine, logs, lost_ranges, verifications
from service.store.checkpoints import Checkpoint
from service.store.logs import Log
from service.stream import log_reader, topics
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases.key_register import KeyRegister
from service.verification import queries
from service.verification.answers import AnswerAudit
from service.verification.history import ClientAnswer
from service.verification.log_audit import LogAudit
from service.verification.order import OrderChecker
from service.verification.progress import OnProgress, ProofProgress, ProofStep

_DUPLICATES = ("users_with_two", "request_ids_with_two", "duplicates_without_first")
_DISORDER = (
    "coupons_with_gaps",
    "out_of_order",
    "sold_out_too_early",
    "issued_after_sold_out",
    "not_refused_after_close",
    "window_ignored",
)
_AUDIT_FINDINGS = (
    "records",
    "redelivered",
    "undecided",
    "deleted",
    "moved_by_hand",
    "recorded_as_lost",
    "archived",
    "decodable_now",
    "lost",
    "phantom",
    "contradicted",
    "window_ignored",
)
_LOST = ("lost", "deleted", "moved_by_hand", "phantom", "contradicted")
#: the topic is another log: nothing was compared
_NOT_AUDITED = dict.fromkeys(_AUDIT_FINDINGS, 0)
_UNKEPT = ("dead_without_dead_letter", "held_without_retry")
_REVISED = ("window_checked_twice", "closed_too_early")


class Check(NamedTuple):
    """A check of a promise, with the numbers that decide it: those in `must_be_zero` have to be 0."""

    promise: str
    what: str
    numbers: dict[str, int]
    must_be_zero: tuple[str, ...]
    #: what was found, in words, with places
    details: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no number contradicts the promise."""
        return not any(self.numbers[name] for name in self.must_be_zero)


class Verifier:
    """Verifies P1 to P5, and records only whether they held. Uses temporary tables to bound memory."""

    def __init__(self, settings: Settings, store: Engine, ids: RequestIds, reader: RecordReader) -> None:
        self._settings = settings
        self._store = store
        self._ids = ids
        self._reader = reader

    def verify(
        self,
        history: Iterable[ClientAnswer] | None = None,
        coupon_id: int | None = None,
        cancellation: Cancellation | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[Check]:
        """Return every check, for one coupon or all, and those of the clients' history if given.

        Raises Unavailable, and Cancelled soon after `cancellation` is requested.
        """
        cancellation, progress = cancellation or Cancellation(), ProofProgress(on_progress)
        with engine.repeatable_read(self._store) as tx, engine.cancellable(tx, cancellation):
            tx.execute(text("SET LOCAL statement_timeout = 0"))
            tx.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # it reads the log in between
            KeyRegister(self._ids).require_complete(tx, "the proof cannot verify request ids")
            queries.create_temporary_tables(tx)
            log, current = checkpoints.of_open_log(tx)
            same_log = self._compare_log(tx, log)
            audited, details = (
                self._audit_log(tx, log, current, coupon_id, cancellation, progress)
                if not same_log.numbers["other_topic"]
                else (dict(_NOT_AUDITED), ())
            )
            progress.begin(ProofStep.ORDER, lambda: audited["records"])
            order = self._check_order(tx, coupon_id, cancellation, progress)
            order["window_ignored"] = audited.pop("window_ignored")
            revised = {name: order.pop(name) for name in _REVISED}
            counts_of = (queries.over_issued, queries.duplicate_counts, queries.state_counts)
            progress.begin(ProofStep.COUNTS, lambda: len(counts_of))
            seats, users, counts = (count(tx, coupon_id) for count in cancellation.watch(counts_of))
            checks = [
                Check("P1", "never over-issued", seats, ("over_issued", "miscounted")),
                Check("P2", "one per user", users, _DUPLICATES),
                Check("P3", "in order", order, _DISORDER),
                same_log,
                Check("P4", "every unfinished request is kept", counts, _UNKEPT),
                Check("P4", "nothing lost in the log", audited, _LOST, details),
                Check("P5", "no accepted request was checked again", revised, _REVISED),
            ]
            if history is not None:
                answers = AnswerAudit(self._settings, tx, log, self._ids, coupon_id).audit(history)
                checks.append(Check("P5", "the answers hold", answers, ("lost", "contradicted", "phantom")))
        # the result is worth more than its record
        with suppress(Unavailable), engine.in_transaction(self._store) as tx:
            verifications.record(tx, coupon_id, ok=all(check.ok for check in checks))
        return checks

    def _compare_log(self, tx: Connection, log: Log) -> Check:
        """Compare the topic with the open log; the partitions of earlier logs must have a closing offset."""
        topic = topics.find(topics.build_admin(self._settings), Topic.ISSUE_COUPON)
        other = topic is None or topic.id != log.topic_id
        found = f"its id is {topic.id}" if topic else "it does not exist"
        details = (f"topic {Topic.ISSUE_COUPON}: {found}, that of the open log is {log.topic_id}",) if other else ()
        unclosed = logs.count_unclosed_partitions(tx)
        numbers = {"logs": len(logs.history(tx)), "other_topic": int(other), "unclosed": unclosed}
        return Check("P3", "the topic is the log that was decided", numbers, ("other_topic", "unclosed"), details)

    def _audit_log(
        self,
        tx: Connection,
        log: Log,
        current: Mapping[int, Checkpoint],
        coupon_id: int | None,
        cancellation: Cancellation,
        progress: ProofProgress,
    ) -> tuple[dict[str, int], tuple[str, ...]]:
        """Compare log and rows: each decided record has its row, and no row lacks its record."""
        found: Counter[str] = Counter(dict.fromkeys(_AUDIT_FINDINGS, 0))
        count = self._settings.topic_partitions
        audit = LogAudit(self._settings, tx, log, self._ids, self._reader, coupon_id, cancellation, progress)
        partitions = range(count) if coupon_id is None else [partition_of(coupon_id, count)]
        count_offsets = partial(log_reader.count_offsets, self._settings, Topic.ISSUE_COUPON, partitions)
        progress.begin(ProofStep.LOG, count_offsets)
        for partition in partitions:
            next_offset = current[partition].next_offset if partition in current else 0
            found.update(audit.audit_partition(partition, next_offset))
        details = audit.details
        for partition, moved in queries.checkpoints_moved_by_hand(tx, log.id).items():
            if partition in partitions:
                found["moved_by_hand"] += abs(moved)
                details.append(f"partition {partition}: its next offset was moved by {moved} by hand")
        for lost in lost_ranges.of_log(tx):
            if lost.partition in partitions:
                found["recorded_as_lost"] += (lost.end_offset or lost.first_offset) - lost.first_offset
                end = "the end" if lost.end_offset is None else str(lost.end_offset - 1)
                details.append(
                    f"log {lost.log_id}, partition {lost.partition}: offsets {lost.first_offset} to {end} were recorded"
                    f" as lost by {lost.recorded_by}: {lost.reason}"
                )
        return dict(found), tuple(details)

    def _check_order(
        self, tx: Connection, coupon_id: int | None, cancellation: Cancellation, progress: ProofProgress
    ) -> dict[str, int]:
        """Check the requests of each coupon in order, one coupon after the other."""
        found: Counter[str] = Counter(dict.fromkeys((*_DISORDER, *_REVISED), 0))
        found.update(refused_sold_out=0, coupons_with_retries=0)
        decided = progress.count(cancellation.watch(queries.decided_requests(tx, coupon_id)))
        for number, rows in groupby(decided, key=lambda one: one.coupon_id):
            checker = OrderChecker(queries.coupon_versions(tx, number))
            for _, request_id, request in rows:
                claims = self._ids.decode(request_id)
                found["refused_sold_out"] += request.code is ReasonCode.SOLD_OUT
                checker.check([request._replace(accepted=claims is not None and not claims.foreign)])
            found.update(checker.violations)
            found.update(out_of_order=checker.out_of_order, coupons_with_retries=int(checker.had_retries))
        found["coupons_with_gaps"] = queries.coupons_with_sequence_gaps(tx, coupon_id)
        return dict(found)
