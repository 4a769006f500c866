"""Commits the issuer's offsets to its consumer group, for tools that show the lag. Nothing reads them here."""

import time
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from service.log import get_logger
from service.log_events import LogEvent
from service.stream.topics import Topic

_INTERVAL_SECONDS = 1.0
_log = get_logger(__name__)


class GroupOffsets:
    """The offsets that are not committed to the group yet. A commit costs the broker a write, so there is one a second.

    After a crash the group's offsets are a second old. The issuer starts at the offsets of the database.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._waiting: dict[int, int] = {}
        self._next_at = 0.0

    def add(self, next_offsets: Mapping[int, int]) -> None:
        """Take over the next offset of each partition; commit() sends them."""
        self._waiting.update(next_offsets)

    def commit_if_due(self) -> None:
        """Commit what waits if the last commit was a second ago."""
        if self._waiting and time.monotonic() >= self._next_at:
            self.commit()

    def commit(self) -> None:
        """Commit what waits now: before partitions are given away, and before the consumer is closed."""
        if not self._waiting:
            return
        offsets = [TopicPartition(Topic.ISSUE_COUPON, at, offset) for at, offset in self._waiting.items()]
        self._waiting = {}
        self._next_at = time.monotonic() + _INTERVAL_SECONDS
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            _log.info(LogEvent.KAFKA_COMMIT_FAILED, reason=str(error))
