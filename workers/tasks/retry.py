"""Queue retry: another attempt for requests that failed together, and the standby requests of a coupon."""

from typing import Any

from service.domain.failures import FailureClass, classify
from service.domain.request import LogPosition
from service.domain.retry import ISSUE_RETRY_POLICY
from service.gate.task_counts import TaskCount
from service.log import bound_contextvars
from workers import messages
from workers.celery import app
from workers.descriptions import describe_failure, describe_retry, describe_uncounted_retry
from workers.queues import Task
from workers.resources import worker_resources

_SYSTEM_RETRY_SECONDS = 2


class RequestsFailedAgain(Exception):
    """The reason that Celery, and so Flower, shows for a retry; nothing catches it."""


@app.task(name=Task.RETRY.value, bind=True, max_retries=None)
def issue(self: Any, log_id: int, pairs: list[list[int]], attempts_made: int) -> str:
    """Make one more attempt for requests at pairs of partition and offset; Celery retries those that fail again.

    A system failure is retried without counting an attempt. A crash before the commit changes nothing, and the message
    is delivered again. After the commit the rows are due again or gone: a second delivery finds no request with this
    number of attempts, and the sweep sends the messages that were not sent.
    """
    log_positions = [LogPosition(*pair) for pair in pairs]
    with bound_contextvars(attempt=attempts_made + 1, request_count=len(log_positions)):  # the issuer made the first
        try:
            done = worker_resources().recoverer.retry(log_id, log_positions, attempts_made)
            worker_resources().task_counts.add(TaskCount.RETRY_ATTEMPTS, str(attempts_made + 1), len(log_positions))
        except Exception as error:
            failure = classify(error)
            if failure.failure_class is FailureClass.SYSTEM:
                raise self.retry(
                    exc=error,
                    countdown=_SYSTEM_RETRY_SECONDS,
                    **describe_uncounted_retry(log_positions, attempts_made, failure).options(),
                ) from error
            raise
        # Those that failed again go on as this task, so that Flower shows their attempts as retries of one task.
        failed_again = done.retries.pop((log_id, attempts_made + 1), [])
        messages.send_follow_up(app, worker_resources().shared.gate_admin, done)
        if failed_again:
            first = done.held_failures[failed_again[0]]
            raise self.retry(
                args=(log_id, [list(at) for at in failed_again], attempts_made + 1),
                exc=RequestsFailedAgain(describe_failure(len(failed_again), len(log_positions), first)),
                countdown=ISSUE_RETRY_POLICY.delay_after(attempts_made + 1),
                **describe_retry(failed_again, attempts_made + 1, done.held_failures).options(),
            )
    return "out of attempts: dead letters stored" if done.has_dead_letters else "none failed again"


@app.task(name=Task.DECIDE_STANDBY.value)
def decide_standby(coupon_id: int) -> None:
    """Decide the standby requests of a coupon when no retry does it; send another task if more remain."""
    with bound_contextvars(coupon_id=coupon_id):
        opened = worker_resources()
        messages.send_follow_up(app, opened.shared.gate_admin, opened.recoverer.decide_standby(coupon_id))
