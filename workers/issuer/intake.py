"""Takes records off the consumer: all that is there, or what comes first within a moment."""

import logging
from itertools import chain

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from service.domain.record import Record
from service.stream import log_reader
from service.stream.codec import Reader
from workers.issuer.assignment import Assignment

_log = logging.getLogger(__name__)


class Intake:
    """Reads in order; what a rebalance took away in the meantime is left for `Assignment.flowing` to sift out."""

    def __init__(self, consumer: Consumer, assignment: Assignment, reader: Reader) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._reader = reader

    def take(self, most: int, wait_seconds: float) -> list[Record]:
        """Up to `most` records; a lone one is not kept waiting. Raises KafkaException when the consumer is done for."""
        first = self._consumer.poll(wait_seconds) if most else None
        if first is None:
            return []
        messages = chain([first], self._consumer.consume(most - 1, timeout=0) if most > 1 else ())
        return [self._reader.read(log_reader.raw(one)) for one in messages if one.error() is None or self._heard(one)]

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
