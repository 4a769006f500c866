"""Kafka's limit: librdkafka appends and reads the same records, and nothing is done with them."""

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from benchmarks.ground import Ground
from benchmarks.records import Asked, producer, send
from service.config import Settings

_AT_ONCE = 2_000
_READ_SECONDS = 60.0


def measure(ground: Ground, asked: Sequence[Asked], topic: str) -> dict[str, float]:
    """Records per second appended with the API's guarantees, and read back, on a topic of one partition."""
    make_topic(ground, topic, partitions=1)
    client = producer(ground.stack.kafka_bootstrap_servers)
    send(client, asked[:1], topic)  # connected, and known to the broker
    began = time.monotonic()
    send(client, asked, topic)
    produced = time.monotonic() - began
    return {
        "limit_produce_per_second": len(asked) / produced,
        "limit_consume_per_second": len(asked) / _read(ground, topic, len(asked)),
    }


def make_topic(ground: Ground, topic: str, partitions: int = Settings.model_fields["topic_partitions"].default) -> None:
    """Makes a topic shaped like the log."""
    admin = AdminClient({"bootstrap.servers": ground.stack.kafka_bootstrap_servers, "log_level": 0})
    config = {"message.timestamp.type": "LogAppendTime"}
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(30)


def _read(ground: Ground, topic: str, wanted: int) -> float:
    """Seconds to read so many records from the beginning; the first one, which waits for connections, begins it."""
    client = Consumer({"bootstrap.servers": ground.stack.kafka_bootstrap_servers, "group.id": "bare"})
    client.assign([TopicPartition(topic, 0, 0)])
    assert client.poll(_READ_SECONDS), "nothing was read"
    began, read = time.monotonic(), 1
    while read < wanted:
        assert time.monotonic() < began + _READ_SECONDS, f"{read} of {wanted} were read"
        read += len(client.consume(_AT_ONCE, timeout=1))
    seconds = time.monotonic() - began
    client.close()
    return seconds
