"""Step 8: delivers notices."""

import time
from typing import Any

from service.domain.errors import Unavailable
from service.usecases.notify import notify
from workers.celery import app
from workers.names import Task
from workers.rooms import LEASE_SECONDS, WEBHOOK_SECONDS, rooms

_QUICK_RETRIES = 3
#: a task that takes longer than its lease would be taken over by another
_WITHIN_SECONDS = 3.0


@app.task(name=Task.NOTIFY.value, bind=True, max_retries=_QUICK_RETRIES)
def deliver(self: Any) -> None:
    """Delivers what waits and ends within three seconds; a failing receiver is tried again, at last by the sweep."""
    opened = rooms()
    if opened.sender is None:
        return  # rows of a time when a webhook was set wait until one is set again
    no_post_after = time.monotonic() + _WITHIN_SECONDS - WEBHOOK_SECONDS
    try:
        while notify(opened.common.engine, opened.sender, LEASE_SECONDS):
            if time.monotonic() > no_post_after:
                app.send_task(Task.NOTIFY.value)  # the rest: another task, so that none runs long
                return
    except Unavailable as error:
        if self.request.retries < _QUICK_RETRIES:
            raise self.retry(exc=error, countdown=opened.sender.rest.seconds) from error
        raise
