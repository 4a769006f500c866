"""A topic into which records come at a constant rate."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event, Thread

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

TOPIC = "rebalance"
_PARTITIONS = 6
_PER_SECOND = 200
_TIMEOUT_SECONDS = 10.0


@contextmanager
def trickling(bootstrap_servers: str) -> Iterator[None]:
    """Makes the topic, and fills its partitions in turn until the end of the block."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    admin.create_topics([NewTopic(TOPIC, _PARTITIONS, 1)])[TOPIC].result(_TIMEOUT_SECONDS)
    enough = Event()
    thread = Thread(target=_produce, args=(Producer({"bootstrap.servers": bootstrap_servers}), enough))
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def _produce(producer: Producer, enough: Event) -> None:
    began = time.monotonic()
    for number in count():
        if enough.wait(max(0.0, began + number / _PER_SECOND - time.monotonic())):
            break
        producer.produce(TOPIC, b"", partition=number % _PARTITIONS)
        producer.poll(0)
    producer.flush(_TIMEOUT_SECONDS)
