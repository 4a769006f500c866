"""Step 8: delivers notices."""

from functools import partial
from typing import Any

from service.domain.errors import Unavailable
from service.usecases.notify import deliver_notices
from workers import batching
from workers.celery import app
from workers.queues import Task
from workers.resources import LEASE_SECONDS, WEBHOOK_TIMEOUT_SECONDS, worker_resources

_QUICK_RETRIES = 3
#: a backlog is issued first and told of afterwards: two children at full speed take more than a processor from it
_RESTS = 8


@app.task(name=Task.NOTIFY.value, bind=True, max_retries=_QUICK_RETRIES)
def deliver(self: Any) -> None:
    """Delivers what waits and ends within three seconds; a failing receiver is tried again, at last by the sweep."""
    opened = worker_resources()
    if opened.sender is None:
        return  # rows of a time when a webhook was set wait until one is set again
    post = partial(deliver_notices, opened.shared.engine, opened.sender, LEASE_SECONDS)
    try:
        batching.run_batches(Task.NOTIFY, post, batch_timeout_seconds=WEBHOOK_TIMEOUT_SECONDS, idle_ratio=_RESTS)
    except Unavailable as error:
        if self.request.retries < _QUICK_RETRIES:
            raise self.retry(exc=error, countdown=opened.sender.circuit_breaker.open_seconds) from error
        raise
