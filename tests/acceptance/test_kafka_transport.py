"""Celery over Kafka alone: what is lost is swept up, who is killed or cut off goes on by himself."""

import psutil
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.task_sources import tasks
from tests.system import System
from workers.queues import MessageSource, Task

_RETRY_TOPIC = "coupon.celery.retry"


def test_a_failing_request_is_retried_after_celerys_topics_were_emptied(system_over_kafka: System) -> None:
    """P6 over Kafka: the hint is gone, the sweep sends it again, and the log says so."""
    system = system_over_kafka
    coupon = system.make_coupon(quantity=1)
    system.stack.stop("worker")
    emptied(system, _RETRY_TOPIC)
    failing = system.ask(coupon, 1, fault="22012 1")
    system.eventually(lambda: emptied(system, _RETRY_TOPIC))
    before = tasks(system)

    system.stack.start("worker")

    assert failing is not None
    assert system.final(failing.json()["request_id"])["attempts"] == 2
    ran = tasks(system) - before
    assert (ran[MessageSource.BROKER, Task.RETRY], ran[MessageSource.SWEEP, Task.RETRY]) == (0, 1)


def test_a_worker_whose_children_were_killed_works_on(system_over_kafka: System) -> None:
    """Idle children killed with SIGKILL: those that follow them are given work, the worker itself lives on."""
    system = system_over_kafka
    coupon = system.make_coupon(quantity=1)
    worker = psutil.Process(system.stack.pid("worker"))
    for child in worker.children():
        child.kill()

    failing = system.ask(coupon, 1, fault="22012 1")

    assert failing is not None
    assert system.final(failing.json()["request_id"])["attempts"] == 2
    assert system.stack.pid("worker") == worker.pid


def test_everything_goes_on_by_itself_after_kafka_was_away(system_over_kafka: System) -> None:
    """No process is restarted, and a failing request is retried by the broker's own hint again."""
    system = system_over_kafka
    processes = [system.stack.pid(name) for name in ("worker", "beat", "issuer")]
    system.stack.restart("kafka")
    system.begin()
    before = tasks(system)

    def retried() -> bool:
        failing = system.ask(system.make_coupon(quantity=1), 1, fault="22012 1")
        assert failing is not None
        assert system.final(failing.json()["request_id"])["attempts"] == 2
        return (tasks(system) - before)[MessageSource.BROKER, Task.RETRY] > 0

    system.eventually(retried)
    assert [system.stack.pid(name) for name in ("worker", "beat", "issuer")] == processes


def emptied(system: System, topic: str) -> bool:
    """Whether a topic had records, all of which are deleted now."""
    servers: dict[str, str | int | float | bool] = {"bootstrap.servers": system.stack.kafka_bootstrap_servers}
    consumer = Consumer({**servers, "group.id": "nobody"})
    places = [TopicPartition(topic, partition) for partition in range(system.settings.topic_partitions)]
    try:
        bounds = [consumer.get_watermark_offsets(place, timeout=5) for place in places]
    finally:
        consumer.close()
    ends = [TopicPartition(place.topic, place.partition, last) for place, (_, last) in zip(places, bounds, strict=True)]
    admin = AdminClient(servers)
    for deleting in admin.delete_records(ends).values():
        deleting.result(10)
    return any(first < last for first, last in bounds)
