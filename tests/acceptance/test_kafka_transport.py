"""Celery with Kafka as its broker: lost messages, killed children and a Kafka restart."""

import psutil
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.system import System
from tests.task_sources import tasks
from workers.queues import MessageSource, Task

_RETRY_TOPIC = "coupon.celery.retry"


def test_a_failing_request_is_retried_after_the_records_of_celerys_topics_were_deleted(
    system_over_kafka: System,
) -> None:
    """The message is lost, the sweep sends it again, and the log names the sweep as its source."""
    system = system_over_kafka
    coupon = system.make_coupon(quantity=1)
    system.stack.stop("worker")
    try:
        delete_records(system, _RETRY_TOPIC)
        failing = system.request_issuance(coupon, 1, fault="22012 1")
        system.eventually(lambda: delete_records(system, _RETRY_TOPIC))
        before = tasks(system)
    finally:
        system.stack.start("worker")

    assert failing is not None
    assert system.wait_until_final(failing.json()["request_id"])["attempts"] == 2
    ran = tasks(system) - before
    assert (ran[MessageSource.BROKER, Task.RETRY], ran[MessageSource.SWEEP, Task.RETRY]) == (0, 1)


def test_a_worker_replaces_its_killed_children(system_over_kafka: System) -> None:
    """After SIGKILL of its idle children, new ones get the work, and the worker itself keeps running."""
    system = system_over_kafka
    coupon = system.make_coupon(quantity=1)
    worker = psutil.Process(system.stack.pid("worker"))
    for child in worker.children():
        child.kill()

    failing = system.request_issuance(coupon, 1, fault="22012 1")

    assert failing is not None
    assert system.wait_until_final(failing.json()["request_id"])["attempts"] == 2
    assert system.stack.pid("worker") == worker.pid


def test_everything_resumes_after_a_restart_of_kafka(system_over_kafka: System) -> None:
    """No process restarts, and retries run from the broker's own messages again."""
    system = system_over_kafka
    processes = [system.stack.pid(name) for name in ("worker", "beat", "issuer")]
    system.stack.restart("kafka")
    system.wait_until_ready()
    before = tasks(system)

    def retried() -> bool:
        failing = system.request_issuance(system.make_coupon(quantity=1), 1, fault="22012 1")
        assert failing is not None
        assert system.wait_until_final(failing.json()["request_id"])["attempts"] == 2
        return (tasks(system) - before)[MessageSource.BROKER, Task.RETRY] > 0

    system.eventually(retried)
    assert [system.stack.pid(name) for name in ("worker", "beat", "issuer")] == processes


def delete_records(system: System, topic: str) -> bool:
    """Delete all records of a topic; return whether there were any."""
    servers: dict[str, str | int | float | bool] = {"bootstrap.servers": system.stack.kafka_bootstrap_servers}
    consumer = Consumer({**servers, "group.id": "unused"})
    partitions = [TopicPartition(topic, number) for number in range(system.settings.topic_partitions)]
    try:
        bounds = [consumer.get_watermark_offsets(partition, timeout=5) for partition in partitions]
    finally:
        consumer.close()
    ends = [TopicPartition(at.topic, at.partition, last) for at, (_, last) in zip(partitions, bounds, strict=True)]
    admin = AdminClient(servers)
    for deleting in admin.delete_records(ends).values():
        deleting.result(10)
    return any(first < last for first, last in bounds)
