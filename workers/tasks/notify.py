"""Queue notify: delivers notices to the webhook's receiver."""

from functools import partial
from typing import Any

from service.domain.errors import Unavailable
from service.usecases.notify import deliver_notices
from workers import batching
from workers.celery import app
from workers.descriptions import describe_due_work_retry
from workers.queues import Task
from workers.resources import LEASE_SECONDS, WEBHOOK_TIMEOUT_SECONDS, webhook_sender, worker_resources

_MAX_RETRIES = 3
#: longest delay of a retry: a message that waits is not acknowledged, and would be delivered again after each
#: visibility timeout (celeryconfig.py)
_MAX_COUNTDOWN_SECONDS = 4.0
#: issuing has priority: two children at full speed would take more than one processor from it
_IDLE_RATIO = 8


@app.task(name=Task.NOTIFY.value, bind=True, max_retries=_MAX_RETRIES)
def deliver(self: Any) -> str:
    """Deliver the notices that are due, for at most three seconds.

    After a failed POST, Celery retries the task up to three times, each time when the circuit breaker has closed. After
    that, or if the breaker stays open for longer because the receiver asked for it, the sweep sends the task.
    """
    opened, sender = worker_resources(), webhook_sender()
    if sender is None:
        return "no webhook is configured"  # entries written earlier stay in the outbox
    post = partial(deliver_notices, opened.shared.engine, sender, LEASE_SECONDS)
    try:
        count = batching.run_batches(
            Task.NOTIFY,
            post,
            batch_timeout_seconds=WEBHOOK_TIMEOUT_SECONDS,
            idle_ratio=_IDLE_RATIO,
            gate_admin=opened.shared.gate_admin,
        )
    except Unavailable as error:
        countdown = retry_delay(sender.circuit_breaker.open_seconds, self.request.retries)
        if countdown is not None:
            description = describe_due_work_retry(Task.NOTIFY, self.request.retries + 2, _MAX_RETRIES + 1, error)
            raise self.retry(
                exc=error,
                countdown=countdown,
                **description.options(),
            ) from error
        raise
    return f"outbox entries delivered: {count}"


def retry_delay(open_seconds: float, retries: int) -> float | None:
    """Return the seconds after which Celery retries the task; None: the sweep sends it when rows are due.

    `open_seconds`: for how long the circuit breaker is open. `retries`: how often this task was retried.
    """
    return open_seconds if retries < _MAX_RETRIES and open_seconds <= _MAX_COUNTDOWN_SECONDS else None
