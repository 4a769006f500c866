"""Kafka's limit: librdkafka appends and reads the same records, without any processing."""

import time
from collections.abc import Sequence

from confluent_kafka import Consumer, TopicPartition

from benchmarks.environment import Environment
from benchmarks.load.records import RequestRecord, build_producer, send

_FETCH_RECORDS = 2_000
_TIMEOUT_SECONDS = 60.0


def measure(environment: Environment, records: Sequence[RequestRecord], topic: str) -> dict[str, float]:
    """Return records per second appended with the API's guarantees, and read back, on a topic of one partition."""
    environment.create_topic(topic, partitions=1)
    producer = build_producer(environment.stack.kafka_bootstrap_servers)
    send(producer, records[:1], topic)  # connect and register the producer before the clock starts
    began = time.monotonic()
    send(producer, records, topic)
    produced = time.monotonic() - began
    return {
        "limit_produce_per_second": len(records) / produced,
        "limit_consume_per_second": len(records) / _read_seconds(environment, topic, len(records)),
    }


def _read_seconds(environment: Environment, topic: str, count: int) -> float:
    """Return the seconds to read `count` records. The clock starts at the first one, which waits for connections."""
    consumer = Consumer({"bootstrap.servers": environment.stack.kafka_bootstrap_servers, "group.id": "bare"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    assert consumer.poll(_TIMEOUT_SECONDS), "no record was read"
    began, read = time.monotonic(), 1
    while read < count:
        assert time.monotonic() < began + _TIMEOUT_SECONDS, f"{read} of {count} records were read"
        read += len(consumer.consume(_FETCH_RECORDS, timeout=1))
    seconds = time.monotonic() - began
    consumer.close()
    return seconds
