"""Step 4: poll, issue, tell; what comes next is read while a poll is written."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from confluent_kafka import Consumer, KafkaException, TopicPartition

from service import crash_points
from service.clock import jitter
from service.crash_points import CrashPoint
from service.domain.errors import Fenced
from service.domain.failures import classify
from service.domain.record import Record
from service.domain.retry import backoff_seconds
from service.metrics import BATCH_DURATION, BATCH_RECORDS, DECISIONS
from service.resources import Resources
from service.store import checkpoints
from service.stream import log_reader
from service.stream.topics import Topic
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.issue import Issuer
from service.usecases.write_plan import IssueResult
from workers.issuer.after_commit import AfterCommit
from workers.issuer.assignment import Assignment
from workers.issuer.buffer import RecordBuffer
from workers.issuer.health import Health
from workers.issuer.watermark import Watermark

_log = logging.getLogger(__name__)
_IDLE_SECONDS = 0.2
_RENEW_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 1.0
_BACKOFF_CEILING_SECONDS = 5.0
#: a poll that waits for a lock keeps nobody from reading
_DECIDING_SECONDS_MOST = 0.05


class IssueLoop:
    """One consumer at a time; a system failure pauses, a restart begins at the database's offsets.

    One thread reads and keeps the positions; a second one issues, a poll after the other. What was read while a poll
    was written counts only once that poll's end is known: whatever its partitions lost is dropped then. Reading begins
    when the other has decided and the database writes: two that compute take turns at the interpreter, both slower.
    """

    def __init__(
        self, resources: Resources, connect: Callable[[], Consumer], issuer: Issuer, teller: AfterCommit, health: Health
    ) -> None:
        self._resources = resources
        self._connect = connect
        self._issuer = issuer
        self._teller = teller
        self._health = health
        self._issuing = ThreadPoolExecutor(1, "issuing")
        self._under_way: tuple[list[Record], Future[IssueResult]] | None = None
        self._writing = threading.Event()
        #: decided; to free thousands takes a while, which is there while the database works
        self._spent: Sequence[Record] = ()
        self._renew()
        self._stopping = False
        self._at_once = resources.settings.poll_records
        self._failures = 0
        self._not_before = 0.0
        self._idle = Watermark(resources, health)

    def stop(self) -> None:
        """Lets the poll under way finish, then ends."""
        self._stopping = True

    def run(self) -> None:
        """Issues until stopped; a consumer that cannot go on is replaced."""
        while not self._stopping:
            try:
                self._follow()
            except KafkaException as error:
                _log.error("the consumer is replaced: %s", error)
                self._health.set_unready("issuer", str(error))
                self._leave()
                time.sleep(_RENEW_SECONDS)
                self._renew()

    def close(self) -> None:
        """Leaves the group once the poll under way has ended."""
        self._leave()
        self._issuing.shutdown()
        self._idle.close()

    def _leave(self) -> None:
        self._settle()
        self._consumer.close()
        self._assignment.clear_health()

    def _renew(self) -> None:
        self._consumer = self._connect()
        self._assignment = Assignment(self._consumer, self._health, self._settle)
        self._intake = RecordBuffer(self._consumer, self._assignment, self._resources.reader)

    def _follow(self) -> None:
        """Issues until stopped; raises KafkaException when the consumer has failed for good."""
        self._assignment.subscribe()
        while not self._stopping:
            self._health.record_progress()
            self._place()
            self._read()
            self._idle.poll(self._assignment)
            self._begin()

    def _read(self) -> None:
        """All that is there, read while the poll before is written, and what came until that had ended."""
        most = self._resources.settings.poll_records
        if self._under_way:
            self._writing.wait(_DECIDING_SECONDS_MOST)
        self._spent = ()
        self._intake.fill(most, _IDLE_SECONDS)
        self._settle()
        if len(self._intake) < most:
            self._intake.fill(most, 0)

    def _begin(self) -> None:
        records = self._intake.take(self._at_once)
        if not records:
            return
        positions = dict(self._assignment.next_offsets)
        self._writing.clear()
        self._under_way = records, self._issuing.submit(self._issue, records, positions)

    def _issue(self, records: Sequence[Record], positions: dict[int, int]) -> IssueResult:
        """Effect first, then those who are told.

        Killed before the commit: another reads the same records. Killed after it: the database's offset is past them,
        and the sweep finds what nobody was told of.
        """
        began = time.monotonic()
        issued = self._issuer.issue(records, positions, on_writing=self._writing.set)
        self._teller.publish(issued)
        crash_points.reach(CrashPoint.ISSUER_PUBLISHED)
        BATCH_DURATION.observe(time.monotonic() - began)
        BATCH_RECORDS.observe(issued.record_count)
        for (state, code), count in issued.counts.items():
            DECISIONS.labels(state, code or "").inc(count)
        return issued

    def _settle(self) -> None:
        """Waits for the poll under way and takes in what became of it; afterwards none is under way."""
        if not self._under_way:
            return
        records, ending = self._under_way
        self._spent = records
        self._under_way = None
        try:
            self._take_in(records, ending.result())
        except Fenced as fenced:
            self._without(fenced, records)
        except Exception as error:  # noqa: BLE001  # whatever it was: nothing is dropped, nothing skipped
            self._trouble(records, error)

    def _take_in(self, records: Sequence[Record], issued: IssueResult) -> None:
        """The positions are the database's; what many failures kept a poll from is next, in growing polls."""
        self._failures = 0
        self._assignment.advance(issued.next_offsets)
        self._commit(issued.next_offsets)
        self._intake.push_front(records[issued.record_count :])
        was_cut = issued.record_count < len(records)
        self._at_once = (
            MAX_FAILURES_PER_TRANSACTION if was_cut else min(2 * self._at_once, self._resources.settings.poll_records)
        )

    def _without(self, fenced: Fenced, records: Sequence[Record]) -> None:
        """Another issuer has moved some partitions: they are placed anew, the rest of the poll goes on."""
        _log.warning("dropped: %s", fenced)
        self._assignment.pause(fenced.partitions, str(fenced))
        self._intake.push_front(records)

    def _trouble(self, records: Sequence[Record], error: Exception) -> None:
        """The system failed, not a record: pause, spend no attempts, begin again at the database's offset."""
        self._assignment.pause({record.raw.log_position.partition for record in records}, str(classify(error)))
        self._back_off("issuing is paused", error)

    def _place(self) -> None:
        """Places waiting partitions at the database's offsets, once the pause after a failure is over."""
        if not self._assignment.waiting or time.monotonic() < self._not_before:
            return
        self._settle()  # so that the positions which are told are the database's
        try:
            stored = self._stored_offsets()
            self._intake.drop_stale()
            self._assignment.resume_at(stored)
            self._teller.publish(IssueResult(next_offsets=dict(self._assignment.next_offsets)))
            self._commit(self._assignment.next_offsets)
        except Exception as error:  # noqa: BLE001  # whatever it was: nothing flows until it is over
            self._back_off("the offsets cannot be read", error)

    def _back_off(self, what: str, error: Exception) -> None:
        self._failures += 1
        wait = backoff_seconds(
            self._failures, initial_seconds=0.1, max_seconds=_BACKOFF_CEILING_SECONDS, jitter=jitter()
        )
        self._not_before = time.monotonic() + wait
        _log.warning("%s, next try in %.1f s: %s", what, wait, classify(error))

    def _stored_offsets(self) -> dict[int, int]:
        """Where waiting partitions go on; one that was never decided begins where its log begins."""
        with self._resources.engine.begin() as tx:
            stored = checkpoints.current_checkpoints(tx, self._resources.log_id)
        unknown = self._assignment.waiting - stored.keys()
        found = log_reader.offset_ranges(self._consumer, Topic.ISSUE_COUPON, unknown)
        for partition, why in found.errors.items():
            self._health.set_unready(f"partition {partition}", why)
        if found.errors:
            self._not_before = time.monotonic() + _LOOK_AGAIN_SECONDS  # a look at a leader that is away takes its time
        beginnings = {partition: first for partition, (first, _) in found.ranges.items()}
        with self._resources.engine.begin() as tx:
            stored |= checkpoints.ensure_checkpoints(tx, self._resources.log_id, beginnings) if beginnings else {}
        return {partition: position.next_offset for partition, position in stored.items()}

    def _commit(self, positions: dict[int, int]) -> None:
        """Kafka's own offsets follow, for tools that show the lag; nothing depends on them."""
        following = [TopicPartition(Topic.ISSUE_COUPON, at, position) for at, position in positions.items()]
        if not following:
            return
        try:
            self._consumer.commit(offsets=following, asynchronous=True)
        except KafkaException as error:
            _log.info("Kafka's offsets do not follow: %s", error)
