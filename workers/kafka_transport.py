"""Celery over Kafka: kombu's own transport, and what a worker needs beyond it (docs/decisions/0010)."""

from queue import Empty
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]
from kombu.transport import confluentkafka

_ADMIN_SECONDS = 5.0


class Channel(confluentkafka.Channel):
    """Never waits without an end, and not at all for messages."""

    def _open(self) -> Any:
        """Connects; kombu waits as long for the broker as for a message, and for that at each empty queue in turn."""
        client = super()._open()  # type: ignore[no-untyped-call]
        self.wait_time_seconds = 0
        return client

    def _new_queue(self, queue: str, **_: Any) -> None:
        """Makes the topic if it is absent; kombu asks without a time limit, and does not look whether it was made."""
        settings = {name: self.options[name] for name in ("num_partitions", "replication_factor")}
        topic = NewTopic(queue, **settings, config=self.options["topic_config"])
        making = self.client.create_topics([topic], request_timeout=_ADMIN_SECONDS)[queue]
        try:
            making.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


class Transport(confluentkafka.Transport):
    """Runs in the worker's event loop, as Redis does.

    Without it the worker's children share one pipe under one lock, and an idle child that is killed holds that lock
    for ever: the worker goes on taking messages, and no child works on any.
    """

    Channel = Channel
    implements = confluentkafka.Transport.implements.extend(asynchronous=True)

    def register_with_event_loop(self, _: Any, loop: Any) -> None:
        """Lets the worker's loop look for messages every `polling_interval`."""
        loop.call_repeatedly(self.polling_interval, self._take)

    def _take(self) -> None:
        """Delivers what is there, as far as the worker has children free."""
        try:
            while True:
                self.cycle.get(self._deliver)  # type: ignore[union-attr]
        except Empty:
            return


def raise_if_undelivered(error: KafkaError | None, _: Message) -> None:
    """A producer's delivery callback: what was not sent is an error, where kombu takes it for sent."""
    if error is not None:
        raise KafkaException(error)
