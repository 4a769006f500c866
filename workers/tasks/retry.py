"""Step 6: makes one more attempt for requests that failed together; Celery's own retry does the backoff."""

from typing import Any

from service.domain.failures import FailureClass, classify
from service.domain.request import LogPosition
from service.domain.retry import ISSUE_RETRY_POLICY
from workers import messages
from workers.celery import app
from workers.queues import Task
from workers.resources import worker_resources

_SYSTEM_DELAY_SECONDS = 2


@app.task(name=Task.RETRY.value, bind=True, max_retries=None)
def issue(self: Any, log_id: int, places: list[list[int]], attempts_made: int) -> None:
    """Places are [partition, offset]; those that fail again come back with one attempt more, as a Celery retry."""
    try:
        done = worker_resources().recoverer.retry(log_id, [LogPosition(*place) for place in places], attempts_made)
    except Exception as error:
        if classify(error).failure_class is FailureClass.SYSTEM:
            raise self.retry(exc=error, countdown=_SYSTEM_DELAY_SECONDS) from error
        raise
    mine = done.retries.pop((log_id, attempts_made + 1), [])
    messages.send_follow_up(app, done)
    if mine:
        again = (log_id, [list(place) for place in mine], attempts_made + 1)
        raise self.retry(args=again, countdown=ISSUE_RETRY_POLICY.delay_after(attempts_made + 1))


@app.task(name=Task.DECIDE_STANDBY.value)
def decide_standby(coupon_id: int) -> None:
    """Promotes or refuses those on standby whom no retry was left to settle, and sends for itself while more wait."""
    messages.send_follow_up(app, worker_resources().recoverer.decide_standby(coupon_id))
