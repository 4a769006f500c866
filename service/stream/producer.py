"""The API's Kafka producer for asyncio: appends requests to the log and reports each outcome once."""

import asyncio
import contextvars
import signal
from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from service.domain.errors import CouponsError, NotProduced, ProduceUnconfirmed, Unavailable
from service.domain.request import LogPosition
from service.log import get_logger
from service.log_events import LogEvent
from service.stream.topics import Topic

#: the result of an append: its log position once every in-sync replica has it, NotProduced or ProduceUnconfirmed
ProduceOutcome = LogPosition | CouponsError
Headers = list[tuple[str, str | bytes | None]]
#: errors with which librdkafka refuses a record before any of it left the process
_NEVER_SENT = (KafkaError._QUEUE_FULL, KafkaError.MSG_SIZE_TOO_LARGE)  # noqa: SLF001  # public, by the client's naming
_POLL_SECONDS = 0.001
#: while no record waits for its report, only errors of the client come, which are logged
_IDLE_POLL_SECONDS = 1.0
_log = get_logger(__name__)


class RequestProducer:
    """A producer whose delivery reports the event loop polls in batches.

    A thread that waits for them would compete with the loop for the interpreter, report by report.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        #: context of the timer callbacks, so that their log lines do not carry the fields of a request
        self._context = contextvars.copy_context()
        self._fatal: str | None = None
        self._unreported = 0
        #: whether a record was acknowledged since the last poll
        self._acknowledged = False
        #: when a record was last acknowledged, or none was waiting
        self._acknowledged_at = self._loop.time()
        self._next_poll = self._loop.call_later(_IDLE_POLL_SECONDS, self._poll, context=self._context)
        self._idle = True

    def produce(
        self, partition: int, key: bytes, value: bytes, headers: Headers, on_delivery: Callable[[ProduceOutcome], None]
    ) -> None:
        """Send a record to a partition (-1: the producer's partitioner chooses).

        `on_delivery` is called once with the outcome, from the event loop; that may be before this returns.
        """

        def report(error: KafkaError | None, message: Message) -> None:
            self._unreported -= 1
            if error:
                on_delivery(_failure(error))
                return
            self._acknowledged = True
            on_delivery(LogPosition(message.partition() or 0, message.offset() or 0))

        try:
            self._producer.produce(Topic.ISSUE_COUPON, value, key, partition, report, headers=headers or None)
        except BufferError:
            on_delivery(NotProduced("Kafka", "the producer's queue is full"))
        except KafkaException as error:
            on_delivery(_failure(error.args[0]))
        else:
            self._unreported += 1
            if self._idle:
                self._acknowledged_at = self._loop.time()
                self._schedule_poll(_POLL_SECONDS)

    def require_acknowledging(self, max_age_seconds: float) -> None:
        """Raise Unavailable when the producer has failed, or records wait and none was acknowledged for that long."""
        if self._fatal is not None:
            raise Unavailable("Kafka", self._fatal)
        age = self._loop.time() - self._acknowledged_at
        if (waiting := self._unreported) and age > max_age_seconds:
            raise Unavailable("Kafka", f"no record was acknowledged for {age:.1f} s, and {waiting} wait")

    def close(self, timeout_seconds: float) -> int:
        """Wait for outstanding delivery reports; return the number of records that still have none."""
        self._next_poll.cancel()
        return self._producer.flush(timeout_seconds)

    def _poll(self) -> None:
        """Serve librdkafka's callbacks: delivery reports while records have none yet, errors at any time.

        After a fatal error the producer never sends again: the process exits cleanly, and its supervisor restarts it.
        """
        try:
            self._producer.poll(0)
        except KafkaException as error:
            if self._fatal is None:
                self._fatal = error.args[0].str()
                _log.critical(LogEvent.PRODUCER_FATAL, reason=self._fatal)
                signal.raise_signal(signal.SIGTERM)
        finally:  # polled again even if an on_delivery callback raised
            if self._acknowledged or not self._unreported:
                self._acknowledged, self._acknowledged_at = False, self._loop.time()
            self._schedule_poll(_POLL_SECONDS if self._unreported else _IDLE_POLL_SECONDS)

    def _schedule_poll(self, seconds: float) -> None:
        self._next_poll.cancel()
        self._idle = seconds == _IDLE_POLL_SECONDS
        self._next_poll = self._loop.call_later(seconds, self._poll, context=self._context)


def _failure(error: KafkaError) -> CouponsError:
    kind = NotProduced if error.code() in _NEVER_SENT else ProduceUnconfirmed
    return kind("Kafka", error.str())
