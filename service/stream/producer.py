"""Step 3: appends a request to the log and hears the broker's word, from asyncio."""

import asyncio
import logging
import signal
from collections.abc import Callable
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from service.domain.errors import CouponsError, Unavailable
from service.domain.request import LogPosition
from service.stream.topics import Topic

#: what became of an append: the record's place once every in-sync replica has it, NotSent or Unknown
ProduceOutcome = LogPosition | CouponsError
Headers = list[tuple[str, str | bytes | None]]
#: errors with which librdkafka refuses a record before any of it left the process
_NEVER_SENT = (KafkaError._QUEUE_FULL, KafkaError.MSG_SIZE_TOO_LARGE)  # noqa: SLF001  # public, by the client's naming
_SECONDS_UNDER_WAY = 0.001
_SECONDS_IDLE = 0.1
_log = logging.getLogger(__name__)


class NotProduced(Unavailable):
    """The record certainly is not in the log, and will not be."""


class ProduceUnconfirmed(Unavailable):
    """The record may be in the log or not: nobody said."""


class RequestProducer:
    """A producer that the event loop itself asks for delivery reports, all that are there at a time.

    A thread that waits for them would fight with the loop for the interpreter, report by report.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._fatal: str | None = None
        self._under_way = 0
        self._next_look = self._loop.call_later(_SECONDS_IDLE, self._look)
        self._idle = True

    def produce(
        self, partition: int, key: bytes, value: bytes, headers: Headers, on_delivery: Callable[[ProduceOutcome], None]
    ) -> None:
        """Sends a record to a partition (-1: where the producer's partitioner says).

        `heard` is called once with what became of it, which may be before this returns.
        """
        try:
            self._producer.produce(
                Topic.ISSUE_COUPON, value, key, partition, partial(self._report, on_delivery), headers=headers
            )
        except BufferError:
            on_delivery(NotProduced("Kafka", "the producer's queue is full"))
        except KafkaException as error:
            on_delivery(_failure(error.args[0]))
        else:
            self._under_way += 1
            if self._idle:
                self._look_in(_SECONDS_UNDER_WAY)

    def require_reachable(self, timeout_seconds: float) -> None:
        """Raises Unavailable when no broker answers in time, or the producer cannot go on."""
        if self._fatal is not None:
            raise Unavailable("Kafka", self._fatal)
        try:
            self._producer.list_topics(Topic.ISSUE_COUPON, timeout=timeout_seconds)
        except KafkaException as error:
            raise Unavailable("Kafka", str(error.args[0])) from error

    def close(self, timeout_seconds: float) -> int:
        """Waits for outstanding reports; the number of records still unreported."""
        self._next_look.cancel()
        return self._producer.flush(timeout_seconds)

    def _look(self) -> None:
        """Serves what librdkafka has to say: reports while records are under way, errors at any time."""
        try:
            self._producer.poll(0)
        except KafkaException as error:
            self._fail(error.args[0])
        finally:  # whatever a report's hearer does, the next look comes
            self._look_in(_SECONDS_UNDER_WAY if self._under_way and self._fatal is None else _SECONDS_IDLE)

    def _look_in(self, seconds: float) -> None:
        self._next_look.cancel()
        self._idle = seconds == _SECONDS_IDLE
        self._next_look = self._loop.call_later(seconds, self._look)

    def _fail(self, error: KafkaError) -> None:
        """After a fatal error the producer never sends again: the process ends in order, to be started anew."""
        if self._fatal is None:
            self._fatal = error.str()
            _log.critical("the producer cannot go on: %s", self._fatal)
            signal.raise_signal(signal.SIGTERM)

    def _report(self, heard: Callable[[ProduceOutcome], None], error: KafkaError | None, message: Message) -> None:
        self._under_way -= 1
        heard(_failure(error) if error else LogPosition(message.partition() or 0, message.offset() or 0))


def _failure(error: KafkaError) -> CouponsError:
    kind = NotProduced if error.code() in _NEVER_SENT else ProduceUnconfirmed
    return kind("Kafka", error.str())
