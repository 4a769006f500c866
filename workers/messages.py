"""Sends Celery tasks for rows that wait in the database.

A message may be lost or delivered twice. The row holds the work; the sweep finds a row whose message was lost.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from celery import Celery
from celery.signals import before_task_publish

from service import tracing
from service.domain.errors import Unavailable
from service.domain.request import LogPosition
from service.domain.retry import ISSUE_RETRY_POLICY
from service.gate.gate_admin import GateAdmin
from service.store.outbox import OutboxKind
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.follow_up import FollowUp
from service.usecases.write_plan import HeldFailure
from workers.descriptions import (
    Description,
    describe_continuation,
    describe_due_work,
    describe_retry,
    describe_standby,
)
from workers.queues import MessageSource, Task

_OUTBOX_TASKS = {OutboxKind.NOTIFY: Task.NOTIFY, OutboxKind.GATE: Task.SYNC_GATE}
#: after this time a message that was marked as queued counts as lost
_QUEUED_SECONDS = 5
#: the message header with the MessageSource
_SOURCE_HEADER = "source"


@before_task_publish.connect
def set_timestamp(properties: dict[str, Any], **_: Any) -> None:
    """Set AMQP's property `timestamp`, which kombu leaves out: seconds since 1970 UTC.

    Celery calls this for each message of a process that imports this module: those of beat and of Celery's own retries
    too.
    """
    properties["timestamp"] = time.time()


def send_outbox_tasks(
    app: Celery,
    gate_admin: GateAdmin | None,
    kinds: Iterable[OutboxKind],
    *,
    dead: bool,
    source: MessageSource = MessageSource.BROKER,
) -> None:
    """Send one task for each kind of outbox entry that waits, and one if dead letters wait.

    gate_admin: skips a task that is marked as queued or running. None (the sweep): every task is sent.
    """
    for kind in kinds:
        task = _OUTBOX_TASKS[kind]
        is_new = True
        if gate_admin:
            with suppress(Unavailable):  # a message too many does no harm
                is_new = gate_admin.mark_queued(task, _QUEUED_SECONDS)
        if not is_new:
            continue
        try:
            _send(app, task, source, describe_due_work(task, source))
        except Exception:
            with suppress(Unavailable):  # the mark expires
                if gate_admin:
                    gate_admin.unmark_queued(task)
            raise
    if dead:
        _send(app, Task.FORWARD_DEAD_LETTERS, source, describe_due_work(Task.FORWARD_DEAD_LETTERS, source))


def send_follow_up(app: Celery, gate_admin: GateAdmin, done: FollowUp) -> None:
    """Send the tasks of a follow-up."""
    send_outbox_tasks(app, gate_admin, done.outbox_kinds, dead=done.has_dead_letters)
    for (log_id, attempts_made), log_positions in done.retries.items():
        send_retry(app, log_id, log_positions, attempts_made, failures=done.held_failures)
    send_decide_standby(app, done.coupons_with_standby)


def send_decide_standby(
    app: Celery, coupon_ids: Iterable[int], *, source: MessageSource = MessageSource.BROKER
) -> None:
    """Send one task for each coupon whose standby requests can be decided."""
    for coupon_id in coupon_ids:
        _send(app, Task.DECIDE_STANDBY, source, describe_standby(coupon_id, source), (coupon_id,))


def send_retry(
    app: Celery,
    log_id: int,
    log_positions: Sequence[LogPosition],
    attempts_made: int,
    *,
    failures: Mapping[LogPosition, HeldFailure] | None = None,
    source: MessageSource = MessageSource.BROKER,
) -> None:
    """Send another attempt for requests that failed together and have had `attempts_made`.

    It is due after the policy's delay, at once if the sweep sends it. `failures` is only shown to people.
    """
    delay = None if source is MessageSource.SWEEP else ISSUE_RETRY_POLICY.delay_after(attempts_made)
    for first in range(0, len(log_positions), MAX_FAILURES_PER_TRANSACTION):
        chunk = log_positions[first : first + MAX_FAILURES_PER_TRANSACTION]
        description = describe_retry(chunk, attempts_made, failures or {}, source)
        _send(app, Task.RETRY, source, description, (log_id, [list(at) for at in chunk], attempts_made), delay)


def send_sync_changes(app: Celery, *, source: MessageSource = MessageSource.BROKER) -> None:
    """Send the task that publishes coupon changes to the gate."""
    _send(app, Task.SYNC_CHANGES, source, describe_due_work(Task.SYNC_CHANGES, source))


def send_continuation(app: Celery, task: Task) -> None:
    """Send a task again because more is due than one run may take."""
    _send(app, task, MessageSource.BROKER, describe_continuation(task))


def _send(
    app: Celery,
    task: Task,
    source: MessageSource,
    description: Description,
    args: tuple[Any, ...] = (),
    delay_seconds: float | None = None,
) -> None:
    headers = {_SOURCE_HEADER: source.value, **tracing.message_headers()}
    app.send_task(task.value, args, countdown=delay_seconds, headers=headers, **description.options())


def source_of(request: Any) -> MessageSource:
    """Return who sent the message of a running task; Celery's own retry counts as the broker's.

    A retry inherits the headers of the previous message, so they do not identify the sender of the retry.
    """
    from_sweep = (request.headers or {}).get(_SOURCE_HEADER) == MessageSource.SWEEP
    return MessageSource.SWEEP if from_sweep and not request.retries else MessageSource.BROKER
