"""Tells Celery that rows wait. A hint may be lost or come twice: the row is the truth, the sweep finds it."""

from collections.abc import Iterable, Sequence
from typing import Any

from celery import Celery

from service.domain.request import LogPosition
from service.domain.retry import ISSUE_RETRY_POLICY
from service.store.outbox import OutboxKind
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.recover import FollowUp
from workers.queues import MessageSource, Task

_TASK = {OutboxKind.NOTIFY: Task.NOTIFY, OutboxKind.GATE: Task.SYNC_GATE}
#: the header that tells whose hint a message is
_HEADER = "hint"


def send_outbox_tasks(
    app: Celery, kinds: Iterable[OutboxKind], *, dead: bool, source: MessageSource = MessageSource.BROKER
) -> None:
    """One message for each kind of work that waits."""
    for task in [*(_TASK[kind] for kind in kinds), *([Task.FORWARD_DEAD_LETTERS] if dead else [])]:
        _send(app, task, source)


def send_follow_up(app: Celery, done: FollowUp) -> None:
    """What an attempt left to do."""
    send_outbox_tasks(app, done.outbox_kinds, dead=done.has_dead_letters)
    for (log, attempts_made), places in done.retries.items():
        send_retry(app, log, places, attempts_made)
    send_decide_standby(app, done.coupons_with_standby)


def send_decide_standby(
    app: Celery, coupon_ids: Iterable[int], *, source: MessageSource = MessageSource.BROKER
) -> None:
    """Those on standby for these coupons can be decided now."""
    for coupon_id in coupon_ids:
        _send(app, Task.DECIDE_STANDBY, source, (coupon_id,))


def send_retry(
    app: Celery,
    log_id: int,
    log_positions: Sequence[LogPosition],
    attempts_made: int,
    *,
    source: MessageSource = MessageSource.BROKER,
) -> None:
    """Requests that failed together and have had `attempts_made`: after the policy's delay; at once if swept up."""
    delay = None if source is MessageSource.SWEEP else ISSUE_RETRY_POLICY.delay_after(attempts_made)
    for first in range(0, len(log_positions), MAX_FAILURES_PER_TRANSACTION):
        some = [list(place) for place in log_positions[first : first + MAX_FAILURES_PER_TRANSACTION]]
        _send(app, Task.RETRY, source, (log_id, some, attempts_made), delay)


def send_sync_changes(app: Celery, *, source: MessageSource = MessageSource.BROKER) -> None:
    """The gate has not heard of some change of a coupon."""
    _send(app, Task.SYNC_CHANGES, source)


def _send(
    app: Celery, task: Task, hint: MessageSource, args: tuple[Any, ...] = (), delay_seconds: float | None = None
) -> None:
    app.send_task(task.value, args, countdown=delay_seconds, headers={_HEADER: hint.value})


def source_of(request: Any) -> MessageSource:
    """Whose hint a running task follows; its own retry is the broker's, though it inherits the first one's header."""
    swept = (request.headers or {}).get(_HEADER) == MessageSource.SWEEP
    return MessageSource.SWEEP if swept and not request.retries else MessageSource.BROKER
