"""Messages after a commit: a task that is queued or running already is not sent again."""

from collections.abc import Iterator

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis

from service.gate.celery_broker import read_queues
from service.gate.gate_admin import GateAdmin
from service.resources import Resources
from service.store.outbox import OutboxKind
from service.usecases.write_plan import IssueResult
from tests.gate_client import GateClient
from tests.waiting import eventually
from workers import batching, messages
from workers.issuer.after_commit import AfterCommit
from workers.queues import Queue, Task


@pytest.fixture
def broker(resources: Resources) -> Iterator[Redis]:
    """Celery's broker with empty queues."""
    with Redis.from_url(resources.settings.celery_broker_url) as client:
        client.delete(*Queue)
        yield client
        client.delete(*Queue)


def publish(resources: Resources, *kinds: OutboxKind) -> None:
    """Publish the result of one commit and wait until its messages are sent."""
    celery = Celery("tests", broker=resources.settings.celery_broker_url, set_as_current=False)
    celery.conf.task_routes = {task.value: {"queue": task.queue.value} for task in Task}
    after_commit = AfterCommit(celery, resources)
    after_commit.publish(IssueResult(outbox_kinds=set(kinds)))
    after_commit.close(10)


def test_a_task_that_is_queued_is_not_sent_again(resources: Resources, broker: Redis) -> None:
    """One message serves all commits before its task has run; each kind has its own."""
    publish(resources, OutboxKind.NOTIFY)
    publish(resources, OutboxKind.NOTIFY, OutboxKind.GATE)

    assert (broker.llen(Queue.NOTIFY), broker.llen(Queue.MAINTENANCE)) == (1, 1)


def test_a_task_that_has_run_is_sent_again(resources: Resources, broker: Redis) -> None:
    """A run that finds nothing more removes the mark, then looks once more for commits that sent no message."""
    publish(resources, OutboxKind.NOTIFY)
    found = [3, 0, 2, 0]

    done = batching.run_batches(Task.NOTIFY, lambda: found.pop(0), gate_admin=resources.gate_admin)
    publish(resources, OutboxKind.NOTIFY)

    assert (done, broker.llen(Queue.NOTIFY)) == (5, 2)


def test_a_message_says_when_it_was_sent(resources: Resources, broker: Redis) -> None:
    """The age of a queue is that of its oldest message."""
    publish(resources, OutboxKind.NOTIFY)

    state = read_queues(broker, [Queue.NOTIFY])[Queue.NOTIFY]

    assert state.messages == 1
    assert state.age_seconds is not None
    assert 0 < state.age_seconds < 30


def test_a_mark_expires(gate_admin: GateAdmin, redis: Redis) -> None:
    """A message that was lost with its mark left behind is sent again later."""
    assert gate_admin.mark_queued(Task.NOTIFY, 1)
    assert not gate_admin.mark_queued(Task.NOTIFY, 1)

    assert 0 < redis.pttl("gate:queued:notify.deliver") <= 1_000


def test_a_message_that_cannot_be_sent_leaves_no_mark(resources: Resources, gate_admin: GateAdmin) -> None:
    """The next commit sends it."""
    celery = Celery("tests", broker="redis://127.0.0.1:9/0", set_as_current=False)
    celery.conf.task_publish_retry = False

    with pytest.raises(OperationalError):
        messages.send_outbox_tasks(celery, resources.gate_admin, [OutboxKind.NOTIFY], dead=False)

    assert gate_admin.mark_queued(Task.NOTIFY, 1)


def test_progress_that_waited_for_its_interval_is_published(resources: Resources, gate_client: GateClient) -> None:
    """The last progress of many commits reaches the gate without a further commit."""
    celery = Celery("tests", broker=resources.settings.celery_broker_url, set_as_current=False)
    after_commit = AfterCommit(celery, resources)

    for next_offset in range(1, 51):
        after_commit.publish(IssueResult(next_offsets={0: next_offset, 1: 2 * next_offset}))

    eventually(lambda: gate_client.progress() == {0: 50, 1: 100})
    after_commit.close(10)
