"""Step 8: delivers notices."""

import time
from typing import Any

from service.domain.errors import Unavailable
from service.domain.retry import backoff_seconds
from service.usecases.notify import notify
from workers.celery import app
from workers.names import Task
from workers.rooms import LEASE_SECONDS, rooms

_QUICK_RETRIES = 3
_BUDGET_SECONDS = 2.0


@app.task(name=Task.NOTIFY.value, bind=True, max_retries=_QUICK_RETRIES)
def deliver(self: Any) -> None:
    """Delivers what waits for about two seconds; a receiver that fails is tried again, at last by the sweep only."""
    opened = rooms()
    if opened.sender is None:
        return  # rows of a time when a webhook was set wait until one is set again
    ends = time.monotonic() + _BUDGET_SECONDS
    try:
        while notify(opened.common.engine, opened.sender, LEASE_SECONDS):
            if time.monotonic() > ends:
                app.send_task(Task.NOTIFY.value)  # the rest: another task, so that none runs long
                return
    except Unavailable as error:
        if self.request.retries < _QUICK_RETRIES:
            raise self.retry(exc=error, countdown=backoff_seconds(self.request.retries + 1)) from error
        raise
