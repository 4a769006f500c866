"""The consumer of the dead-letter topic: logs each dead letter, confirms those of this service, stores foreign ones."""

from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaException

from service.background_thread import BackgroundThread
from service.clock import jitter
from service.domain.failures import classify
from service.domain.record import RawRecord
from service.domain.retry import backoff_seconds
from service.log import bound_contextvars, get_logger
from service.log_events import LogEvent
from service.resources import Resources
from service.stream import log_reader
from service.stream.topics import Topic
from service.usecases import dead_letter_topic
from workers.issuer.batch_offsets import BatchOffsets
from workers.issuer.health import Health

_log = get_logger(__name__)
_SUBJECT = "dead letters"
_BATCH_SIZE = 500
_POLL_SECONDS = 0.5
_REPLACE_SECONDS = 1.0


class DeadLetterListener(BackgroundThread):
    """A consumer and a thread of its own, so that its rebalances do not disturb the issuer's group."""

    def __init__(self, resources: Resources, connect: Callable[[], Consumer], health: Health) -> None:
        super().__init__("dead-letters")
        self._resources = resources
        self._health = health
        self._connect = connect
        self._consumer = connect()

    def close(self) -> None:
        """Finish the batch in progress and leave the group."""
        super().close()
        self._consumer.close()

    def run(self) -> None:
        """Work until the thread is closed."""
        """Consume until closed; replace a consumer that has failed."""
        while not self._stopping.is_set():
            try:
                self._consumer.subscribe([Topic.DEAD_LETTERS])
                while not self._stopping.is_set():
                    self._consume_batch()
                    self._health.set_ready(_SUBJECT)
            except Exception as error:  # noqa: BLE001  # the thread must not end
                _log.warning(LogEvent.DEAD_LETTER_LISTENER_FAILED, reason=str(classify(error)))
                self._health.set_unready(_SUBJECT, str(classify(error)))
                self._consumer.close()
                self._stopping.wait(_REPLACE_SECONDS)
                self._consumer = self._connect()

    def _consume_batch(self) -> None:
        """Poll a batch, store it, then commit its offsets.

        After a crash before the commit the same records are read again; storing them a second time changes nothing.
        Raises KafkaException when the consumer has failed for good.
        """
        records = []
        for message in log_reader.poll_batch(self._consumer, _BATCH_SIZE, _POLL_SECONDS):
            error = message.error()
            if error is None:
                records.append(log_reader.raw_record(message))
            elif error.fatal():
                raise KafkaException(error)
            else:
                _log.warning(LogEvent.CONSUMER_ERROR, reason=str(error))
        if records and self._store(records):
            try:
                self._consumer.commit(asynchronous=True)
            except KafkaException as error:
                _log.info(LogEvent.KAFKA_COMMIT_FAILED, reason=str(error))

    def _store(self, records: Sequence[RawRecord]) -> bool:
        """Try until the records are stored; return False if the process ends first; they are then read again.

        If several cannot be stored together, they are stored one by one, in order.
        """
        tries = 0
        with bound_contextvars(offsets=BatchOffsets(record.log_position for record in records)):
            while not self._stopping.is_set():
                try:
                    dead_letter_topic.store_received(self._resources.engine, self._resources.reader, records)
                except Exception as error:  # noqa: BLE001  # no dead letter is dropped: the same are tried again
                    tries += 1
                    reason = str(error).strip()
                    _log.warning(LogEvent.DEAD_LETTERS_NOT_STORED, count=len(records), tries=tries, reason=reason)
                    if len(records) > 1:
                        return all(self._store([record]) for record in records)
                    self._health.set_unready(_SUBJECT, str(classify(error)))
                    self._stopping.wait(backoff_seconds(tries, initial_seconds=0.2, max_seconds=5, jitter=jitter()))
                else:
                    return True
        return False
