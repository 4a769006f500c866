"""Takes records off the consumer, all that is there or what comes first within a moment, and keeps them in order."""

import logging
from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from service.domain.record import Record
from service.stream import log_reader
from service.stream.codec import RecordReader
from workers.issuer.assignment import Assignment

_log = logging.getLogger(__name__)


class RecordBuffer:
    """Reads in order, and keeps what was read until it is decided or somebody else's to decide."""

    def __init__(self, consumer: Consumer, assignment: Assignment, reader: RecordReader) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._reader = reader
        self._read: list[Record] = []

    def __len__(self) -> int:
        """Records in hand."""
        return len(self._read)

    def fill(self, most: int, wait_seconds: float) -> None:
        """Takes what is there until `most` are in hand, and one in any case: the group must see that this issuer lives.

        A lone record is not kept waiting. Raises KafkaException when the consumer is done for.
        """
        taken = self._take(max(1, most - len(self._read)), 0 if self._read else wait_seconds)
        self._read = self._read + taken  # a rebalance may have given some back meanwhile

    def push_front(self, records: Sequence[Record]) -> None:
        """These come first: they were read before what is in hand."""
        self._read = [*records, *self._read]

    def take(self, most: int) -> list[Record]:
        """Hands out the next poll: up to `most` of those that are ours to decide."""
        self.drop_stale()
        poll, self._read = self._read[:most], self._read[most:]
        return poll

    def drop_stale(self) -> None:
        """Drops what is not ours to decide; to be done before a partition flows from another offset."""
        self._read = self._assignment.assigned_only(self._read)

    def _take(self, most: int, wait_seconds: float) -> list[Record]:
        messages = log_reader.poll_batch(self._consumer, most, wait_seconds)
        return [
            self._reader.decode(log_reader.raw_record(one))
            for one in messages
            if one.error() is None or self._heard(one)
        ]

    def _heard(self, message: Message) -> bool:
        """Deals with a message that carries an error and no record."""
        error = message.error()
        assert error is not None
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001  # its public name
            self._assignment.stop(message.partition() or 0, f"the database's offset is not in the log: {error.str()}")
        elif error.code() == KafkaError._FATAL:  # noqa: SLF001  # its public name
            raise KafkaException(error)
        else:
            _log.warning("kafka: %s", error)
        return False
