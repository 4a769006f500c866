"""Commits the issuer's offsets to its consumer group, for tools that show the lag. Nothing reads them here."""

import time
from collections.abc import Container, Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from service.log import get_logger
from service.log_events import LogEvent
from service.stream.topics import Topic

_INTERVAL_SECONDS = 1.0
_log = get_logger(__name__)


class GroupOffsets:
    """The offsets that are not committed to the group yet. A commit costs the broker a write, so there is one a second.

    After a crash the group's offsets are a second old. The issuer starts at the offsets of the database. No commit
    begins while partitions are given away: it could keep the consumer from joining the group again, and the next owner
    commits when it starts.
    """

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._waiting: dict[int, int] = {}
        self._next_at = 0.0

    def add(self, next_offsets: Mapping[int, int]) -> None:
        """Take over the next offset of each partition; commit() sends them."""
        self._waiting.update(next_offsets)

    def commit_if_due(self, assigned: Container[int]) -> None:
        """Commit what waits if the last commit was a second ago."""
        if self._waiting and time.monotonic() >= self._next_at:
            self.commit(assigned)

    def commit(self, assigned: Container[int]) -> None:
        """Commit what waits of the assigned partitions now; drop the rest."""
        offsets = [
            TopicPartition(Topic.ISSUE_COUPON, at, offset) for at, offset in self._waiting.items() if at in assigned
        ]
        self._waiting = {}
        if not offsets:
            return
        self._next_at = time.monotonic() + _INTERVAL_SECONDS
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            _log.info(LogEvent.KAFKA_COMMIT_FAILED, reason=str(error))
