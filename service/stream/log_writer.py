"""Step 3: appends a request to the log and waits for the broker's word, from asyncio."""

import asyncio
import logging
import signal
import threading
from collections import deque
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from service.domain.errors import CouponsError, Unavailable
from service.domain.request import Place
from service.stream.topics import Topic

#: errors with which librdkafka refuses a record before any of it left the process
_NEVER_SENT = (KafkaError._QUEUE_FULL, KafkaError.MSG_SIZE_TOO_LARGE)  # noqa: SLF001  # public, by the client's naming
_log = logging.getLogger(__name__)
_Report = tuple["asyncio.Future[Place]", Place | CouponsError]


class NotSent(Unavailable):
    """The record certainly is not in the log, and will not be."""


class Unknown(Unavailable):
    """The record may be in the log or not: nobody said."""


class LogWriter:
    """A producer whose delivery reports come back to the event loop, many at a time."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._loop = asyncio.get_running_loop()
        self._reports: deque[_Report] = deque()
        self._woken = False
        self._fatal: str | None = None
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="delivery-reports", daemon=True)
        self._poller.start()

    async def append(self, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]) -> Place:
        """The record's place once every in-sync replica has it; raises NotSent or Unknown."""
        done: asyncio.Future[Place] = self._loop.create_future()
        try:
            self._producer.produce(
                Topic.ISSUE_COUPON,
                key=key,
                value=value,
                headers=list(headers),
                on_delivery=lambda error, message: self._report(done, error, message),
            )
        except BufferError as error:
            raise NotSent("Kafka", "the producer's queue is full") from error
        except KafkaException as error:
            raise _failure(error.args[0]) from error
        return await done

    def reach(self, timeout_seconds: float) -> None:
        """Raises Unavailable when no broker answers in time, or the producer cannot go on."""
        if self._fatal is not None:
            raise Unavailable("Kafka", self._fatal)
        try:
            self._producer.list_topics(Topic.ISSUE_COUPON, timeout=timeout_seconds)
        except KafkaException as error:
            raise Unavailable("Kafka", str(error.args[0])) from error

    def close(self, timeout_seconds: float) -> int:
        """Waits for outstanding reports; the number of records still unreported."""
        left = self._producer.flush(timeout_seconds)
        self._closing.set()
        self._poller.join()
        return left

    def _poll(self) -> None:
        while not self._closing.is_set():
            try:
                self._producer.poll(0.1)
            except KafkaException as error:
                self._fail(error.args[0])

    def _fail(self, error: KafkaError) -> None:
        """After a fatal error the producer never sends again: the process ends in order, to be started anew."""
        if self._fatal is None:
            self._fatal = error.str()
            _log.critical("the producer cannot go on: %s", self._fatal)
            signal.raise_signal(signal.SIGTERM)
        self._closing.wait(0.1)

    def _report(self, done: "asyncio.Future[Place]", error: KafkaError | None, message: Message) -> None:
        """Runs in the polling thread; one wake-up of the loop serves all reports that arrived by then."""
        result = _failure(error) if error else Place(message.partition() or 0, message.offset() or 0)
        self._reports.append((done, result))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        self._woken = False  # before the last look, so that a report that comes after it wakes the loop again
        while self._reports:
            done, result = self._reports.popleft()
            if done.done():
                continue
            if isinstance(result, CouponsError):
                done.set_exception(result)
            else:
                done.set_result(result)


def _failure(error: KafkaError) -> CouponsError:
    kind = NotSent if error.code() in _NEVER_SENT else Unknown
    return kind("Kafka", error.str())
