"""The issuer's loop: poll a batch, decide it, publish it; the next batch is read while the current one is written."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import Consumer, KafkaException

from service import crash_points, tracing
from service.clock import jitter
from service.crash_points import CrashPoint
from service.domain.errors import Fenced
from service.domain.failures import classify
from service.domain.record import Record
from service.domain.retry import backoff_seconds
from service.log import bound_contextvars, get_logger
from service.log_events import LogEvent
from service.resources import Resources
from service.store import checkpoints
from service.stream import log_reader
from service.stream.topics import Group, Topic
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.issue import Issuer
from service.usecases.write_plan import IssueResult
from workers.issuer.after_commit import AfterCommit
from workers.issuer.assignment import Assignment
from workers.issuer.batch_measurement import BatchMeasurement
from workers.issuer.batch_offsets import BatchOffsets
from workers.issuer.buffer import RecordBuffer
from workers.issuer.group_offsets import GroupOffsets
from workers.issuer.health import Health
from workers.issuer.watermark import Watermark

_log = get_logger(__name__)
#: how long a poll waits for the first record
_POLL_SECONDS = 0.2
#: pause before a failed consumer is replaced
_REPLACE_SECONDS = 1.0
#: pause after a partition leader did not answer
_LEADER_AWAY_SECONDS = 1.0
_MAX_BACKOFF_SECONDS = 5.0
#: subjects of the health report
_LOG, _KEYS = "log", "request id keys"
#: how often a stopped partition's offset is read again: `coupons log skip` moves it
_STOPPED_SECONDS = 1.0
#: reading starts after this time even if the batch is still being decided, for example while it waits for a lock
_MAX_DECIDING_SECONDS = 0.05
#: Least time from the beginning of a batch to that of the next one, if no records are left to decide. A transaction
#: costs about as much as a hundred records, so under load larger batches save most of the CPU time. A lone record never
#: waits.
_PAUSE_SECONDS, _LONG_PAUSE_SECONDS = 0.01, 0.02
#: records of a batch after which the pause is the long one: about 5,000 a second
_LONG_PAUSE_RECORDS = 50


class IssueLoop:
    """Decides the partitions of this issuer in order, starting at the offsets that the database holds.

    Two threads. The loop's thread polls Kafka and keeps the offsets. The issuing thread decides and writes one batch
    after another. Records read while a batch is written are kept only if that batch succeeds: when it fails, its
    partitions are paused and their records are dropped and read again.

    Reading starts when the issuing thread has made its decisions and waits for the database. Two threads that compute
    would take turns at the interpreter lock, and both would be slower.
    """

    def __init__(
        self,
        resources: Resources,
        connect: Callable[[], Consumer],
        issuer: Issuer,
        after_commit: AfterCommit,
        health: Health,
    ) -> None:
        self._resources = resources
        self._connect = connect
        self._issuer = issuer
        self._after_commit = after_commit
        self._health = health
        self._executor = ThreadPoolExecutor(1, "issuing")
        #: the batch that the issuing thread works on
        self._in_progress: tuple[list[Record], Future[IssueResult]] | None = None
        #: set when the batch in progress is decided and is being written
        self._decided = threading.Event()
        #: records of the last finished batch. Freeing thousands takes a while, so it happens while the database works.
        self._finished_records: Sequence[Record] = ()
        self._stopping = False
        self._max_records = resources.settings.poll_records
        #: current batch size: small after a batch with many failures, then it grows back
        self._batch_size = self._max_records
        #: system failures in a row
        self._failures = 0
        #: monotonic time before which paused partitions stay paused
        self._not_before = 0.0
        #: monotonic time before which no batch is read
        self._next_batch_at = 0.0
        self._watermark = Watermark(resources, health)
        #: the log that is decided here; run() returns when another one is adopted
        self._log = resources.log_watch.log
        self._open_consumer()

    def _open_consumer(self) -> None:
        self._consumer = self._connect()
        self._group_offsets = GroupOffsets(self._consumer)
        self._assignment = Assignment(self._consumer, self._health, self._finish_batch)
        self._buffer = RecordBuffer(self._consumer, self._assignment, self._resources.reader, self._log.topic_id)

    def _close_consumer(self) -> None:
        self._finish_batch()
        self._group_offsets.commit(self._assignment.next_offsets)
        self._consumer.close()
        self._assignment.clear_health()

    def stop(self) -> None:
        """Make run() return after the batch in progress."""
        self._stopping = True

    def close(self) -> None:
        """Finish the batch in progress and leave the consumer group."""
        self._close_consumer()
        self._executor.shutdown()
        self._watermark.close()

    def run(self) -> bool:
        """Issue until stop() is called (return False) or another log is adopted (return True)."""
        watch = self._resources.log_watch
        while not self._stopping and watch.log == self._log:
            try:
                self._assignment.subscribe()
                while not self._stopping and not self._faults() and watch.log == self._log:
                    self._run_once()
                if faults := self._faults():
                    self._replace_consumer(faults)
            except KafkaException as error:  # the consumer has failed for good
                self._replace_consumer({"issuer": str(error)})
        return not self._stopping

    def _replace_consumer(self, reasons: Mapping[str, str]) -> None:
        """Close the consumer, wait while this issuer must not decide, then connect again.

        It leaves the group meanwhile, so that an issuer without such a fault decides the partitions.
        """
        _log.error(LogEvent.CONSUMER_REPLACED, reason="; ".join(reasons.values()))
        self._report_faults(reasons)
        self._close_consumer()
        while not self._stopping and (faults := self._faults()):
            self._report_faults(faults)
            self._health.record_iteration()
            time.sleep(_POLL_SECONDS)
        time.sleep(_REPLACE_SECONDS)
        self._health.set_ready(_LOG)
        self._health.set_ready(_KEYS)
        self._open_consumer()

    def _faults(self) -> dict[str, str]:
        """Return why this issuer must not decide, by subject: the topic is not the open log, or a key is missing."""
        faults = {_LOG: self._resources.log_watch.fault, _KEYS: self._resources.key_register.fault}
        return {subject: reason for subject, reason in faults.items() if reason}

    def _report_faults(self, faults: Mapping[str, str]) -> None:
        for subject, reason in faults.items():
            self._health.set_unready(subject, reason)

    def _run_once(self) -> None:
        """Read the next batch while the current one is written, finish the current one, start the next.

        Raises KafkaException when the consumer has failed for good.
        """
        self._health.record_iteration()
        if self._assignment.waiting and time.monotonic() >= self._not_before:
            self._resume_partitions()

        if self._in_progress:
            self._decided.wait(_MAX_DECIDING_SECONDS)
        self._finished_records = ()
        time.sleep(max(0.0, self._next_batch_at - time.monotonic()))
        self._buffer.fill(self._max_records, _POLL_SECONDS)
        self._finish_batch()
        if len(self._buffer) < self._max_records:
            self._buffer.fill(self._max_records, 0)  # what has arrived in the meantime

        self._watermark.poll(self._assignment)
        self._group_offsets.commit_if_due(self._assignment.next_offsets)

        if records := self._buffer.take(self._batch_size):
            self._decided.clear()
            self._next_batch_at = time.monotonic() + self._pause_seconds(len(records))
            offsets = dict(self._assignment.next_offsets)
            self._in_progress = records, self._executor.submit(self._issue, records, offsets)

    def _pause_seconds(self, records: int) -> float:
        """Return the least seconds from the beginning of a batch of so many records to that of the next one."""
        if records == 1 or self._buffer:
            return 0.0
        return _LONG_PAUSE_SECONDS if records > _LONG_PAUSE_RECORDS else _PAUSE_SECONDS

    def _issue(self, records: Sequence[Record], next_offsets: Mapping[int, int]) -> IssueResult:
        """Decide and commit a batch, then publish what follows from it; runs in the issuing thread.

        The order is effect first, then messages and offsets. After a crash:
        - before the commit inside issue(): nothing is written; the next owner of the partitions reads the same records;
        - after the commit, before or during publish(): the checkpoint in the database is past these records, so nobody
          decides them again; the sweep finds the rows whose messages were not sent.
        """
        measured = BatchMeasurement(self._decided.set)
        with (
            bound_contextvars(offsets=BatchOffsets(record.log_position for record in records)),
            tracing.batch(records, Topic.ISSUE_COUPON, Group.ISSUER),
        ):
            issued = self._issuer.issue(records, next_offsets, on_decided=measured.on_decided)
            measured.on_committed(records, issued)
            issued.traceparent = tracing.current_traceparent()
            self._after_commit.publish(issued)
            crash_points.reach(CrashPoint.ISSUER_PUBLISHED)
        measured.on_published()
        if issued.unverified:
            first = tuple(issued.unverified[0])
            _log.error(LogEvent.REQUEST_IDS_UNVERIFIED, count=len(issued.unverified), first=first)
        return issued

    def _finish_batch(self) -> None:
        """Wait for the batch in progress and act on its result; afterwards none is in progress.

        No record is skipped: a batch that failed is read again from the offsets in the database, and the part that a
        batch did not reach goes to the front of the buffer.
        """
        if not self._in_progress:
            return
        records, future = self._in_progress
        self._finished_records = records
        self._in_progress = None
        with bound_contextvars(offsets=BatchOffsets(record.log_position for record in records)):
            try:
                issued = future.result()
                self._failures = 0
                self._assignment.advance(issued.next_offsets)
                self._group_offsets.add(issued.next_offsets)
                self._buffer.push_front(records[issued.record_count :])
                # A batch ends early after many failures. It goes on in small batches, which grow back.
                ended_early = issued.record_count < len(records)
                grown = min(2 * self._batch_size, self._max_records)
                self._batch_size = MAX_FAILURES_PER_TRANSACTION if ended_early else grown
            except Fenced as fenced:
                # Another issuer has advanced these partitions. They stay paused until their checkpoints are read; the
                # other records of the batch are decided again.
                _log.warning(LogEvent.PARTITIONS_FENCED, partitions=sorted(fenced.partitions))
                self._assignment.pause(fenced.partitions, str(fenced))
                self._buffer.push_front(records)
            except Exception as error:  # noqa: BLE001  # any failure is retried from the database's offsets
                # The system failed, not a record. No attempt is counted.
                partitions = {record.partition for record in records}
                self._assignment.pause(partitions, str(classify(error)))
                self._back_off(LogEvent.ISSUER_PAUSED, error)

    def _resume_partitions(self) -> None:
        """Seek waiting partitions to the offsets in the database and resume them.

        The topic is compared with the open log first: in a topic that was created again these offsets are of other
        records, and this consumer may have been frozen for as long as that took. A partition without a checkpoint gets
        one at the first offset of its log.
        """
        self._finish_batch()  # so that the offsets published below are the database's
        try:
            self._resources.log_watch.compare()
            if self._resources.log_watch.fault:
                return
            with self._resources.engine.begin() as tx:
                stored = checkpoints.current_checkpoints(tx, self._resources.log_id)
            unknown = self._assignment.waiting - stored.keys()
            found = log_reader.offset_ranges(self._consumer, Topic.ISSUE_COUPON, unknown)
            for partition, why in found.errors.items():
                self._health.set_unready(f"partition {partition}", why)
            if found.errors:
                self._not_before = time.monotonic() + _LEADER_AWAY_SECONDS  # asking an absent leader blocks the loop
            if beginnings := {partition: first for partition, (first, _) in found.ranges.items()}:
                with self._resources.engine.begin() as tx:
                    stored |= checkpoints.ensure_checkpoints(tx, self._resources.log_id, beginnings)
            self._buffer.drop_stale()
            self._assignment.resume_at({partition: at.next_offset for partition, at in stored.items()})
            if self._assignment.stopped_at:
                self._not_before = time.monotonic() + _STOPPED_SECONDS
            self._after_commit.publish(IssueResult(next_offsets=dict(self._assignment.next_offsets)))
            self._group_offsets.add(self._assignment.next_offsets)
        except Exception as error:  # noqa: BLE001  # any failure: the partitions stay paused and are tried again
            self._back_off(LogEvent.CHECKPOINTS_UNREADABLE, error)

    def _back_off(self, event: LogEvent, error: Exception) -> None:
        self._failures += 1
        wait = backoff_seconds(self._failures, initial_seconds=0.1, max_seconds=_MAX_BACKOFF_SECONDS, jitter=jitter())
        self._not_before = time.monotonic() + wait
        _log.warning(event, retry_in_seconds=round(wait, 1), reason=str(classify(error)))
