"""Queue notify: delivers notices to the webhook's receiver."""

from functools import partial
from typing import Any

from service.domain.errors import Unavailable
from service.usecases.notify import deliver_notices
from workers import batching
from workers.celery import app
from workers.descriptions import describe_due_work_retry
from workers.queues import Task
from workers.resources import LEASE_SECONDS, WEBHOOK_TIMEOUT_SECONDS, worker_resources

_MAX_RETRIES = 3
#: issuing has priority: two children at full speed would take more than one processor from it
_IDLE_RATIO = 8


@app.task(name=Task.NOTIFY.value, bind=True, max_retries=_MAX_RETRIES)
def deliver(self: Any) -> str:
    """Deliver the notices that are due, for at most three seconds.

    After a failed POST, Celery retries the task three times, each time when the circuit breaker has closed. After that,
    the sweep sends the task.
    """
    opened = worker_resources()
    if opened.sender is None:
        return "no webhook is configured"  # entries written earlier stay in the outbox
    post = partial(deliver_notices, opened.shared.engine, opened.sender, LEASE_SECONDS)
    try:
        count = batching.run_batches(
            Task.NOTIFY,
            post,
            batch_timeout_seconds=WEBHOOK_TIMEOUT_SECONDS,
            idle_ratio=_IDLE_RATIO,
            gate_admin=opened.shared.gate_admin,
        )
    except Unavailable as error:
        if self.request.retries < _MAX_RETRIES:
            description = describe_due_work_retry(Task.NOTIFY, self.request.retries + 2, _MAX_RETRIES + 1, error)
            raise self.retry(
                exc=error,
                countdown=opened.sender.circuit_breaker.open_seconds,
                **description.options(),
            ) from error
        raise
    return f"outbox entries delivered: {count}"
