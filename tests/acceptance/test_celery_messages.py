"""Malformed messages in Celery's broker cost one log line each: the worker goes on, and retries run."""

import json

import psutil
from confluent_kafka import Producer
from redis import Redis

from service.log_events import LogEvent
from tests.celery_messages import RETRY, SWEEP, malformed_messages
from tests.system import System
from tests.task_sources import tasks
from tests.waiting import eventually
from workers.queues import TOPIC_PREFIX, MessageSource, Queue, Task


def test_malformed_messages_in_redis_do_not_stop_the_worker(system: System) -> None:
    """In every queue, in the channels of commands and events, and among the unacknowledged messages."""
    worker = psutil.Process(system.stack.pid("worker"))
    malformed = malformed_messages()
    with Redis.from_url(system.stack.celery_broker_url) as broker:
        for queue in Queue:
            broker.lpush(queue, *malformed)
        patterns = (b"/1.celery.pidbox", b"/1.celeryev/worker.heartbeat")
        for channel in patterns:
            for message in malformed:
                broker.publish(channel, message)
        broker.hset("unacked", "broken", "[")
        broker.zadd("unacked_index", {"broken": 0})
        system.eventually(lambda: not any(broker.llen(queue) for queue in Queue))
        system.eventually(lambda: not broker.hexists("unacked", "broken"))
    dropped = _dropped(system)

    assert _retried_by_the_broker(system)
    assert psutil.Process(system.stack.pid("worker")) == worker
    assert dropped >= len(Queue) * len(malformed)


def test_malformed_messages_after_faults_do_not_slow_the_worker(system: System) -> None:
    """A read that waits for a message in a channel would stop everything else for as long as its timeout is."""
    worker = psutil.Process(system.stack.pid("worker"))
    system.stack.kill("valkey")
    system.eventually(lambda: _retried_by_the_broker(system))
    for child in worker.children():
        child.kill()
    system.eventually(lambda: _retried_by_the_broker(system))
    with Redis.from_url(system.stack.celery_broker_url) as broker:
        for queue in Queue:
            broker.lpush(queue, *malformed_messages())
        for channel in ("/1.celery.pidbox", "/1.celeryev/worker.heartbeat"):
            for message in malformed_messages():
                broker.publish(channel, message)
        eventually(lambda: not any(broker.llen(queue) for queue in Queue), within_seconds=20)


def test_a_well_formed_message_without_work_is_run(system: System) -> None:
    """The messages above differ in one thing each from messages that are accepted."""
    runs = tasks(system)
    with Redis.from_url(system.stack.celery_broker_url) as broker:
        broker.lpush(Queue.RETRY, json.dumps(RETRY))
        broker.lpush(Queue.MAINTENANCE, json.dumps(SWEEP))

    system.eventually(lambda: (tasks(system) - runs)[MessageSource.BROKER, Task.RETRY] == 1)


def test_malformed_messages_in_kafka_do_not_stop_the_worker(system_over_kafka: System) -> None:
    """Over Kafka, a message is a record, which may have no value."""
    system = system_over_kafka
    worker = psutil.Process(system.stack.pid("worker"))
    producer = Producer({"bootstrap.servers": system.stack.kafka_bootstrap_servers})
    malformed = [None, *malformed_messages()]
    for message in malformed:
        producer.produce(f"{TOPIC_PREFIX}{Queue.RETRY}", message)
    assert producer.flush(10) == 0
    read = sum(bool(message) for message in malformed)  # kombu takes a record without bytes for no record
    system.eventually(lambda: _dropped(system) >= read)

    assert _retried_by_the_broker(system)
    assert psutil.Process(system.stack.pid("worker")) == worker


def _retried_by_the_broker(system: System) -> bool:
    """Return whether a failing request is retried, and its message came from the broker and not from the sweep."""
    before, dropped = tasks(system), _dropped(system)
    failing = system.request_issuance(system.make_coupon(quantity=1), 1, fault="22012 1")
    assert failing is not None
    assert system.wait_until_final(failing.json()["request_id"])["attempts"] == 2
    assert _dropped(system) == dropped, "a message of this service was dropped"
    return (tasks(system) - before)[MessageSource.BROKER, Task.RETRY] == 1


def _dropped(system: System) -> int:
    return (system.stack.directory / "log" / "worker.log").read_text().count(LogEvent.MESSAGE_DROPPED)
