"""Step 8: delivers notices."""

from functools import partial
from typing import Any

from service.domain.errors import Unavailable
from service.usecases.notify import notify
from workers import steps
from workers.celery import app
from workers.names import Task
from workers.rooms import LEASE_SECONDS, WEBHOOK_SECONDS, rooms

_QUICK_RETRIES = 3
#: a backlog is issued first and told of afterwards: two children at full speed take more than a processor from it
_RESTS = 8


@app.task(name=Task.NOTIFY.value, bind=True, max_retries=_QUICK_RETRIES)
def deliver(self: Any) -> None:
    """Delivers what waits and ends within three seconds; a failing receiver is tried again, at last by the sweep."""
    opened = rooms()
    if opened.sender is None:
        return  # rows of a time when a webhook was set wait until one is set again
    post = partial(notify, opened.common.engine, opened.sender, LEASE_SECONDS)
    try:
        steps.take(Task.NOTIFY, post, step_seconds=WEBHOOK_SECONDS, rests=_RESTS)
    except Unavailable as error:
        if self.request.retries < _QUICK_RETRIES:
            raise self.retry(exc=error, countdown=opened.sender.circuit_breaker.open_seconds) from error
        raise
