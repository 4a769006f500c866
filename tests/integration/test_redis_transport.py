"""Celery's transport over Redis: who returns the tasks of a killed worker to their queue."""

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty

import pytest
from celery import Celery
from redis import Redis

from service.config import Settings
from workers.queues import Queue
from workers.redis_transport import Transport

_TAG = "the tag of a task whose worker was killed"


@pytest.fixture
def broker(settings: Settings) -> Iterator["Redis"]:
    """The emptied broker with one task that was delivered long ago and never acknowledged."""
    with Redis.from_url(settings.celery_broker_url, decode_responses=True) as broker:
        broker.flushdb()
        task = {"body": "", "headers": {}, "properties": {"delivery_info": {}, "priority": 0}}
        broker.hset("unacked", _TAG, json.dumps([task, "", Queue.RETRY]))
        broker.zadd("unacked_index", {_TAG: 1})
        yield broker
        broker.flushdb()


def _wait(settings: Settings, queue: str, found: Callable[[], object]) -> None:
    """Read a queue as a client does that waits for an answer, until something is found or nothing has arrived."""
    with (
        Celery(set_as_current=False) as celery,
        celery.connection(settings.celery_broker_url, transport=Transport) as one,
    ):
        reader = one.SimpleQueue(queue, no_ack=True)
        for _ in range(3):
            with suppress(Empty):
                reader.get(timeout=0.1)
            if found():
                return


def test_who_waits_for_an_answer_leaves_the_tasks_of_workers_alone(settings: Settings, broker: "Redis") -> None:
    """Flower, and `celery inspect`: they need no right to change a task."""
    _wait(settings, "an-answer.reply.celery.pidbox", lambda: False)

    assert broker.zrange("unacked_index", 0, -1) == [_TAG]


def test_who_takes_tasks_returns_those_of_a_killed_worker(settings: Settings, broker: "Redis") -> None:
    _wait(settings, Queue.RETRY, lambda: not broker.exists("unacked_index"))

    assert broker.zrange("unacked_index", 0, -1) == []
