"""The listener of the dead-letter topic: logs each dead letter, confirms ours, stores those of others."""

import logging
import threading
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaException, Message

from service.clock import jitter
from service.domain.failures import classify
from service.domain.record import RawRecord
from service.domain.retry import backoff_seconds
from service.resources import Resources
from service.stream import log_reader
from service.stream.topics import Topic
from service.usecases import dead_letter_topic
from workers.issuer.health import Health

_log = logging.getLogger(__name__)
_SUBJECT = "dead letters"
_AT_ONCE = 500
_WAIT_SECONDS = 0.5


class DeadLetterListener:
    """A consumer of its own in a thread of its own; its coming and going does not touch the issuer's group."""

    def __init__(self, resources: Resources, connect: Callable[[], Consumer], health: Health) -> None:
        self._resources = resources
        self._health = health
        self._connect = connect
        self._consumer = connect()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dead-letters", daemon=True)

    def start(self) -> None:
        """Begins to listen."""
        self._thread.start()

    def close(self) -> None:
        """Finishes those under way and leaves the group."""
        self._stopping.set()
        self._thread.join()
        self._consumer.close()

    def _run(self) -> None:
        """Listens until stopped; a consumer that cannot go on is replaced."""
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001  # a thread that ends says nothing any more
                _log.warning("dead letters are not heard: %s", classify(error))
                self._health.set_unready(_SUBJECT, str(classify(error)))
                self._consumer.close()
                self._stopping.wait(1)
                self._consumer = self._connect()

    def _follow(self) -> None:
        self._consumer.subscribe([Topic.DEAD_LETTERS])
        while not self._stopping.is_set():
            self._listen()
            self._health.set_ready(_SUBJECT)

    def _listen(self) -> None:
        messages = log_reader.poll_batch(self._consumer, _AT_ONCE, _WAIT_SECONDS)
        found = [log_reader.raw_record(message) for message in messages if _is_record(message)]
        if found and self._take_in(found):
            self._commit()

    def _take_in(self, found: Sequence[RawRecord]) -> bool:
        """Tries until they are stored, or the process ends; then another reads the same records.

        Where many cannot be stored together they are stored one by one.
        """
        attempts = 0
        while not self._stopping.is_set():
            try:
                dead_letter_topic.store_received(self._resources.engine, self._resources.reader, found)
            except Exception as error:  # noqa: BLE001  # nothing is dropped: the same records until they are stored
                _log.warning("%s dead letters cannot be stored yet: %s", len(found), str(error).strip())
                if len(found) > 1:
                    return all(self._take_in([one]) for one in found)
                attempts += 1
                self._health.set_unready(_SUBJECT, str(classify(error)))
                self._stopping.wait(backoff_seconds(attempts, initial_seconds=0.2, max_seconds=5, jitter=jitter()))
            else:
                return True
        return False

    def _commit(self) -> None:
        """All that was taken has been stored."""
        try:
            self._consumer.commit(asynchronous=True)
        except KafkaException as error:
            _log.info("dead letters will be read again: %s", error)


def _is_record(message: Message) -> bool:
    """Whether it carries no error; raises KafkaException where the consumer cannot go on."""
    error = message.error()
    if error and error.fatal():
        raise KafkaException(error)
    if error:
        _log.warning("dead letters: %s", error)
    return error is None
