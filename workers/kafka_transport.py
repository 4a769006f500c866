"""Celery over Kafka: kombu's transport, and what a worker needs beyond it (docs/decisions/0010)."""

from queue import Empty
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]
from kombu.transport import confluentkafka

from workers.checked_delivery import CheckedDelivery, log_dropped

_ADMIN_TIMEOUT_SECONDS = 5.0


class Channel(confluentkafka.Channel):
    """Kombu's channel with a limit on every wait, and no wait at all for messages."""

    def _open(self) -> Any:
        """Connect, then set the poll timeout to 0.

        kombu would otherwise wait for the connect timeout on each empty queue.
        """
        client = super()._open()  # type: ignore[no-untyped-call]
        self.wait_time_seconds = 0
        return client

    def _get(self, queue: str, timeout: Any = None, **options: Any) -> Any:
        """Return the next message; drop one that is not kombu's JSON."""
        try:
            return super()._get(queue, timeout=timeout, **options)  # type: ignore[no-untyped-call]
        except (Empty, KafkaException):
            raise
        except Exception as error:  # noqa: BLE001  # kombu's decoder raises whatever the values of its types raise
            log_dropped(queue, repr(error), getattr(error, "doc", None))
            raise Empty from None

    def _new_queue(self, queue: str, **_: Any) -> None:
        """Create the topic if it is absent; kombu sets no time limit and does not check that it was created.

        An existing topic needs no right to create it.
        """
        if self.client.list_topics(queue, timeout=_ADMIN_TIMEOUT_SECONDS).topics[queue].error is None:
            return
        settings = {name: self.options[name] for name in ("num_partitions", "replication_factor")}
        topic = NewTopic(queue, **settings, config=self.options["topic_config"])
        created = self.client.create_topics([topic], request_timeout=_ADMIN_TIMEOUT_SECONDS)[queue]
        try:
            created.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


class Transport(CheckedDelivery, confluentkafka.Transport):
    """Checks messages as over Redis, and runs in the worker's event loop, like the Redis transport.

    Without the event loop the worker's children share one pipe under one lock. An idle child that is killed holds that
    lock forever: the worker goes on taking messages, and no child works on any.
    """

    Channel = Channel
    implements = confluentkafka.Transport.implements.extend(asynchronous=True)

    def register_with_event_loop(self, _: Any, loop: Any) -> None:
        """Poll for messages every `polling_interval`, and deliver as many as the worker has free children for."""

        def deliver_available() -> None:
            try:
                while True:
                    self.cycle.get(self._deliver)  # type: ignore[union-attr]
            except Empty:
                return

        loop.call_repeatedly(self.polling_interval, deliver_available)


def raise_if_undelivered(error: KafkaError | None, _: Message) -> None:
    """Raise for a message that was not delivered, which kombu would take as sent; a producer's delivery callback."""
    if error is not None:
        raise KafkaException(error)
