"""Messages of Celery's broker are checked before Celery reads them: ours pass, and no other."""

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from celery import Celery
from celery.beat import Scheduler
from kombu.utils.json import loads

from service.domain.request import LogPosition
from service.limits import MAX_ID
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from tests.celery_messages import RETRY, SWEEP, malformed_messages
from tests.unit.conftest import Facts
from workers import messages
from workers.message_check import ARGUMENTS, InvalidMessage, check_message, check_task_message
from workers.queues import MessageSource, Queue, Task, is_task_queue


@pytest.fixture
def celery() -> Iterator[Celery]:
    """A Celery whose messages stay in this process."""
    with Celery("tests", broker="memory://", set_as_current=False) as app:
        app.conf.task_routes = {task.value: {"queue": task.queue.value} for task in Task}
        app.conf.task_time_limit = 7
        yield app


def _sent(celery: Celery, queue: Queue) -> Any:
    """Return the next message of a queue as a worker receives it."""
    with celery.connection_for_read() as connection:
        return json.loads(json.dumps(connection.default_channel._get(queue.value)))


@pytest.mark.parametrize("source", list(MessageSource))
def test_every_message_of_this_service_passes(celery: Celery, source: MessageSource) -> None:
    """Also the longest retry, with the largest numbers."""
    positions = [LogPosition(2**31 - 1, MAX_ID)] * MAX_FAILURES_PER_TRANSACTION
    messages.send_retry(celery, 2**15 - 1, positions, 2, source=source)
    messages.send_decide_standby(celery, [MAX_ID], source=source)
    messages.send_sync_changes(celery, source=source)

    for queue in (Queue.RETRY, Queue.RETRY, Queue.MAINTENANCE):
        check_task_message(_sent(celery, queue))


def test_a_message_of_beat_and_of_a_retry_pass(celery: Celery) -> None:
    """They carry what Celery adds: a time limit, an expiry, the number of retries."""

    @celery.task(name=Task.SWEEP.value, bind=True)  # type: ignore[untyped-decorator]
    def sweep(self: Any) -> None:
        raise self.retry(countdown=1)

    scheduler = Scheduler(celery, lazy=True)
    scheduler.apply_async(scheduler.Entry(Task.SWEEP.value, sweep.name, schedule=1, options={"expires": 5}, app=celery))
    check_task_message(_sent(celery, Queue.MAINTENANCE))

    sweep.apply_async(retries=1)
    check_task_message(_sent(celery, Queue.MAINTENANCE))


@pytest.mark.parametrize("message", [RETRY, SWEEP])
def test_the_messages_from_which_malformed_ones_are_made_pass(message: Any) -> None:
    """Each malformed message differs from one of them in one thing."""
    check_message(message)
    check_task_message(message)


def test_no_malformed_message_passes() -> None:
    """Whatever its shape is, and whatever kombu's decoder of JSON makes of it."""
    for message in malformed_messages():
        try:
            decoded = loads(message)  # type: ignore[no-untyped-call]
        except Exception:  # noqa: BLE001  # the transports drop it
            continue
        with pytest.raises(InvalidMessage):
            check_task_message(decoded)


def test_a_message_of_a_command_or_an_event_needs_kombus_form_only() -> None:
    """Celery's own receivers read its body."""
    check_message({**SWEEP, "headers": {"clock": 5}, "body": "e30="})
    malformed: list[Any] = [None, [], {}, {**SWEEP, "headers": []}, {**SWEEP, "properties": {"delivery_tag": "a"}}]
    for message in malformed:
        with pytest.raises(InvalidMessage):
            check_message(message)


def test_the_arguments_of_every_task_are_those_of_its_function(import_facts: Facts) -> None:
    """A task with another argument would have all its messages dropped."""
    checked = {task: len(get_args(ARGUMENTS[task])) if task in ARGUMENTS else 0 for task in Task}

    assert import_facts["celery"]["arguments"] == checked


@pytest.mark.parametrize(
    ("name", "ours"),
    [("retry", True), ("coupon.celery.notify", True), ("celery@host.celery.pidbox", False), ("celeryev.1", False)],
)
def test_only_our_queues_hold_our_tasks(name: str, ours: bool) -> None:
    """Celery has queues of its own for commands and events."""
    assert is_task_queue(name) is ours
