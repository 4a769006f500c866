"""Tells Celery that rows wait. A hint may be lost or come twice: the row is the truth, the sweep finds it."""

from collections.abc import Iterable, Sequence

from celery import Celery

from service.domain.request import Place
from service.domain.retry import ISSUING
from service.store.handoffs import Kind
from workers.names import Task

_TASK = {Kind.NOTIFY: Task.NOTIFY, Kind.GATE: Task.TELL_GATE}
#: a task that fails for each of them still ends well within its time limit
_PLACES_AT_ONCE = 50


def work_waits(app: Celery, kinds: Iterable[Kind], *, dead: bool) -> None:
    """One message for each kind of work that waits."""
    for task in [*(_TASK[kind] for kind in kinds), *([Task.DEAD_LETTER] if dead else [])]:
        app.send_task(task.value)


def retry(app: Celery, places: Sequence[Place], attempts_made: int, *, now: bool = False) -> None:
    """Requests that failed together and have had `attempts_made`, to be tried after the policy's delay, or now."""
    countdown = None if now else ISSUING.delay_after(attempts_made)
    for first in range(0, len(places), _PLACES_AT_ONCE):
        some = [list(place) for place in places[first : first + _PLACES_AT_ONCE]]
        app.send_task(Task.RETRY.value, (some, attempts_made), countdown=countdown)
