"""The local stack with three Kafka brokers: acknowledged records survive the loss of any one broker."""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from service.stream.topics import Topic
from stack.local import LocalStack
from stack.servers import kafka
from stack.settings import ISOLATED
from stack.startup import SERVERS
from tests.fixtures.parts import REQUEST_ID_KEYS
from tests.waiting import eventually

WAIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    if shortage := kafka.memory_shortage(brokers=3):
        pytest.skip(shortage)
    variables = ISOLATED | {"KAFKA_BROKERS": "3", "REQUEST_ID_KEYS": REQUEST_ID_KEYS}
    with LocalStack(tmp_path_factory.mktemp("brokers"), (*SERVERS, "migrate"), variables) as running:
        yield running


@pytest.mark.parametrize("topic", Topic)
def test_partitions_have_three_replicas_and_an_ack_needs_two(stack: LocalStack, topic: Topic) -> None:
    for partition in _partitions(stack, topic):
        assert {broker.id for broker in partition.replicas} == {1, 2, 3}
    assert _config(stack, topic)["min.insync.replicas"] == "2"


def test_acknowledged_records_survive_a_crash_of_the_leader(stack: LocalStack) -> None:
    """Append one record before the crash and one after it; the restarted leader is in sync with both."""
    first = _append(stack, b"before")
    leader = _partitions(stack, Topic.ISSUE_COUPON)[0].leader.id
    stack.crash(f"kafka-{leader}")

    try:
        second = _append(stack, b"after")
        assert (first.offset(), second.offset()) == (0, 1)
        assert _partitions(stack, Topic.ISSUE_COUPON)[0].leader.id != leader
        assert _records(stack) == [b"before", b"after"]
    finally:
        stack.start(f"kafka-{leader}")
    eventually(lambda: _in_sync(stack) == {1, 2, 3}, within_seconds=WAIT_SECONDS)


def test_committed_offsets_have_three_replicas(stack: LocalStack) -> None:
    consumer = Consumer({**_servers(stack), "group.id": "tests"})
    consumer.commit(offsets=[TopicPartition(Topic.ISSUE_COUPON, 0, 1)], asynchronous=False)
    consumer.close()
    for partition in _partitions(stack, "__consumer_offsets"):
        assert {broker.id for broker in partition.replicas} == {1, 2, 3}


def _append(stack: LocalStack, value: bytes) -> Message:
    """Append a record and return it after the ack of every in-sync replica."""
    acknowledged: list[Message] = []
    producer = Producer({**_servers(stack), "enable.idempotence": True, "acks": "all"})
    producer.produce(Topic.ISSUE_COUPON, value, partition=0, on_delivery=lambda _, record: acknowledged.append(record))
    assert producer.flush(WAIT_SECONDS) == 0
    assert acknowledged[0].error() is None
    return acknowledged[0]


def _servers(stack: LocalStack) -> dict[str, Any]:
    return {"bootstrap.servers": stack.kafka_bootstrap_servers, "log_level": 0}


def _partitions(stack: LocalStack, topic: str) -> list[Any]:
    admin = AdminClient(_servers(stack))
    return list(admin.describe_topics(TopicCollection([topic]))[topic].result(10).partitions)


def _config(stack: LocalStack, topic: Topic) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, str(topic))
    admin = AdminClient(_servers(stack))
    return {name: entry.value for name, entry in admin.describe_configs([resource])[resource].result(10).items()}


def _in_sync(stack: LocalStack) -> set[int]:
    return {broker.id for broker in _partitions(stack, Topic.ISSUE_COUPON)[0].isr}


def _records(stack: LocalStack) -> list[bytes | None]:
    """Return the first two records of the partition."""
    consumer = Consumer({**_servers(stack), "group.id": "tests"})
    try:
        consumer.assign([TopicPartition(Topic.ISSUE_COUPON, 0, 0)])
        return [message.value() for message in consumer.consume(2, timeout=WAIT_SECONDS)]
    finally:
        consumer.close()
