"""Tells Celery that rows wait. A hint may be lost or come twice: the row is the truth, the sweep finds it."""

from collections.abc import Iterable, Sequence
from typing import Any

from celery import Celery

from service.domain.request import LogPosition
from service.domain.retry import ISSUE_RETRY_POLICY
from service.store.outbox import OutboxKind
from service.usecases.recover import Recovered
from service.usecases.segments import FAILURES_AT_ONCE
from workers.names import Hint, Task

_TASK = {OutboxKind.NOTIFY: Task.NOTIFY, OutboxKind.GATE: Task.TELL_GATE}
#: the header that tells whose hint a message is
_HEADER = "hint"


def work_waits(app: Celery, kinds: Iterable[OutboxKind], *, dead: bool, hint: Hint = Hint.BROKER) -> None:
    """One message for each kind of work that waits."""
    for task in [*(_TASK[kind] for kind in kinds), *([Task.DEAD_LETTER] if dead else [])]:
        _send(app, task, hint)


def recovered(app: Celery, done: Recovered) -> None:
    """What an attempt left to do."""
    work_waits(app, done.kinds, dead=done.dead)
    for (log, attempts_made), places in done.again.items():
        retry(app, log, places, attempts_made)
    settle(app, done.unsettled)


def settle(app: Celery, coupon_ids: Iterable[int], *, hint: Hint = Hint.BROKER) -> None:
    """Those on standby for these coupons can be decided now."""
    for coupon_id in coupon_ids:
        _send(app, Task.SETTLE, hint, (coupon_id,))


def retry(
    app: Celery, log: int, places: Sequence[LogPosition], attempts_made: int, *, hint: Hint = Hint.BROKER
) -> None:
    """Requests that failed together and have had `attempts_made`: after the policy's delay; at once if swept up."""
    delay = None if hint is Hint.SWEEP else ISSUE_RETRY_POLICY.delay_after(attempts_made)
    for first in range(0, len(places), FAILURES_AT_ONCE):
        some = [list(place) for place in places[first : first + FAILURES_AT_ONCE]]
        _send(app, Task.RETRY, hint, (log, some, attempts_made), delay)


def changed(app: Celery, *, hint: Hint = Hint.BROKER) -> None:
    """The gate has not heard of some change of a coupon."""
    _send(app, Task.TELL_CHANGES, hint)


def _send(app: Celery, task: Task, hint: Hint, args: tuple[Any, ...] = (), delay_seconds: float | None = None) -> None:
    app.send_task(task.value, args, countdown=delay_seconds, headers={_HEADER: hint.value})


def followed(request: Any) -> Hint:
    """Whose hint a running task follows; its own retry is the broker's, though it inherits the first one's header."""
    swept = (request.headers or {}).get(_HEADER) == Hint.SWEEP
    return Hint.SWEEP if swept and not request.retries else Hint.BROKER
