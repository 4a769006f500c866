"""Advances the watermark of idle partitions: the time before which every appended record has been decided.

A batch advances the watermark of its partitions. A partition without new records has no batch, so this module queries
its end offset. If the checkpoint equals the end offset, every record appended before the query has been decided. The
same holds if no consumer can get a record between the two: transaction markers and records of aborted transactions have
offsets, too.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from confluent_kafka import KafkaException

from service.domain.errors import Unavailable
from service.domain.failures import classify
from service.log import get_logger
from service.log_events import LogEvent
from service.resources import Resources
from service.store import checkpoints, engine
from service.store.checkpoints import CheckpointAdvance
from service.stream import clients, log_reader
from service.stream.log_reader import PartitionRanges
from service.stream.topics import Topic
from service.timestamps import to_milliseconds
from workers.issuer.assignment import Assignment
from workers.issuer.health import Health

_log = get_logger(__name__)
_INTERVAL_SECONDS = 2.0
_METADATA_TIMEOUT_SECONDS = 1.0


class LogEnds(NamedTuple):
    """The offset ranges of partitions, and a time before they were queried."""

    #: milliseconds since 1970 UTC by the database's clock; None while the database does not answer
    before_ms: int | None
    found: PartitionRanges
    #: the next offset of partitions of which a consumer gets no record from there to the end offset
    without_records: dict[int, int]


class Watermark:
    """Queries the end offsets in a thread of its own; the loop processes the result of a finished query.

    It has a consumer of its own, too: on the loop's consumer a query would wait behind the records being fetched.
    """

    def __init__(self, resources: Resources, health: Health) -> None:
        self._resources = resources
        self._health = health
        self._consumer = clients.build_offset_watcher(resources.settings)
        self._executor = ThreadPoolExecutor(1, "watermark")
        self._asked: Future[LogEnds] | None = None
        self._next_ask = 0.0
        #: next offset and end offset of the last query, and those between which no consumer gets a record
        self._last_ranges: dict[int, tuple[int, int]] = {}
        self._without_records: dict[int, tuple[int, int]] = {}

    def close(self) -> None:
        """Wait for the query in progress and close the consumer."""
        self._executor.shutdown()
        self._consumer.close()

    def poll(self, assignment: Assignment) -> None:
        """Process a finished query, or start one. Never waits for Kafka or the database."""
        if self._asked and self._asked.done():
            ends, self._asked = self._asked.result(), None
            if not assignment.next_offsets:
                return
            if away := ends.found.errors:
                self._health.set_unready("kafka", "; ".join(f"partition {at}: {why}" for at, why in away.items()))
            else:
                self._health.set_ready("kafka")
            self._executor.submit(self._advance, dict(assignment.next_offsets), ends)
        elif not self._asked and assignment.next_offsets and time.monotonic() >= self._next_ask:
            self._next_ask = time.monotonic() + _INTERVAL_SECONDS
            self._asked = self._executor.submit(self._ask_log_ends, dict(assignment.next_offsets))

    def _ask_log_ends(self, next_offsets: dict[int, int]) -> LogEnds:
        """Query the end offsets; the time is taken first, so that later appends are not counted as decided."""
        self._consumer.poll(0)  # serves the client's own callbacks
        before_ms = None
        try:
            # The database's clock, because this process's clock may be an hour ahead. One less, because more records
            # may be appended in the same millisecond.
            with self._resources.engine.begin() as tx:
                before_ms = to_milliseconds(engine.database_now(tx)) - 1
        except Exception as error:  # noqa: BLE001  # tried again at the next query
            self._report_database(error)
        found = log_reader.offset_ranges(self._consumer, Topic.ISSUE_COUPON, next_offsets)
        if found.errors:
            # A broker that has not loaded the topic yet answers that it is absent. The client keeps that answer until
            # it fetches the metadata again.
            with suppress(KafkaException):
                self._consumer.list_topics(Topic.ISSUE_COUPON, timeout=_METADATA_TIMEOUT_SECONDS)
        ranges = {at: (next_offsets[at], end) for at, (_, end) in found.ranges.items()}
        return LogEnds(before_ms, found, self._find_without_records(ranges))

    def _find_without_records(self, ranges: dict[int, tuple[int, int]]) -> dict[int, int]:
        """Return the next offset of partitions of which a consumer gets no record up to their end offset.

        Read only partitions in which nothing has moved since the last query, so that a busy one is not read twice.
        """
        idle = {at: span for at, span in ranges.items() if span[0] < span[1] and self._last_ranges.get(at) == span}
        self._last_ranges = ranges
        unread = {at: span for at, span in idle.items() if self._without_records.get(at) != span}
        found: set[int] = set()
        try:
            found = log_reader.without_records(self._resources.settings, Topic.ISSUE_COUPON, unread)
        except Unavailable as error:
            _log.info(LogEvent.WATERMARK_DELAYED, reason=str(error))
        self._without_records = {at: span for at, span in idle.items() if at in found or at not in unread}
        return {at: first for at, (first, _) in self._without_records.items()}

    def _advance(self, next_offsets: dict[int, int], ends: LogEnds) -> None:
        """Advance the watermark of the partitions that are decided up to their end offset.

        It never decreases. The watermark of a partition whose checkpoint has another offset by now is not advanced.
        This is the only write of an idle issuer, so its failure makes the issuer unready.
        """
        if ends.before_ms is None:
            return
        decided = [
            at
            for at, (_, end) in sorted(ends.found.ranges.items())
            if (next_offset := next_offsets.get(at, -1)) >= end or ends.without_records.get(at) == next_offset
        ]
        moves = [CheckpointAdvance(at, next_offsets[at], next_offsets[at], ends.before_ms) for at in decided]
        try:
            if moves:
                with self._resources.engine.begin() as tx:
                    checkpoints.advance(tx, self._resources.log_id, moves)
            self._health.set_ready("postgresql")
        except Exception as error:  # noqa: BLE001  # tried again after the next query
            self._report_database(error)

    def _report_database(self, error: Exception) -> None:
        failure = str(classify(error))
        self._health.set_unready("postgresql", failure)
        _log.info(LogEvent.WATERMARK_DELAYED, reason=failure)
