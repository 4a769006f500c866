"""The clients that tasks use, opened at a process's first task: clients cannot be used after a fork."""

from dataclasses import dataclass
from functools import cache

from service import config, resources
from service.domain.request_id import RequestIds
from service.gate.client import build_client
from service.gate.task_counts import TaskCount, TaskCounts
from service.gate.webhook_failure import WebhookFailure
from service.resources import Resources
from service.stream import clients
from service.stream.dead_letter_records import DeadLetterProducer
from service.usecases.recover import Recoverer
from service.webhooks.sender import WebhookOutcome, WebhookSender

#: time limit of one POST to the webhook's receiver, from connecting to the end of the response
WEBHOOK_TIMEOUT_SECONDS = 2.5
#: claimed work that is not done is claimed again after this; above the longest task, below the visibility timeout
LEASE_SECONDS = 7.5


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """The clients of a worker process."""

    shared: Resources
    ids: RequestIds
    recoverer: Recoverer
    dead_letter_producer: DeadLetterProducer
    task_counts: TaskCounts
    webhook_failure: WebhookFailure


@cache
def worker_resources() -> WorkerResources:
    """Return this process's clients; raises Unavailable while the database or Kafka does not answer."""
    settings = config.load()
    shared = resources.open_resources(settings, "worker", connections=2)
    redis = build_client(settings.redis_url)
    producer = DeadLetterProducer(clients.build_producer(settings))
    return WorkerResources(
        shared,
        shared.key_register.ids,
        resources.recoverer(shared),
        producer,
        TaskCounts(redis),
        WebhookFailure(redis),
    )


@cache
def webhook_sender() -> WebhookSender | None:
    """Return this process's sender of notices; None if no webhook is configured.

    Only the task that needs it opens it: what makes it fail must not end retries and the sweep.
    """
    settings = config.load()
    if not settings.webhook_url:
        return None
    secret = settings.webhook_secret.get_secret_value()
    counts, last_failure = worker_resources().task_counts, worker_resources().webhook_failure

    def record_attempt(outcome: WebhookOutcome, failure: str | None) -> None:
        counts.add(TaskCount.WEBHOOK_ATTEMPTS, outcome)
        if failure is not None:
            last_failure.record(failure)

    return WebhookSender(settings.webhook_url, secret, WEBHOOK_TIMEOUT_SECONDS, record_attempt)


def close() -> None:
    """Close what was opened, in reverse order."""
    if not worker_resources.cache_info().currsize:
        return
    opened = worker_resources()
    if webhook_sender.cache_info().currsize and (sender := webhook_sender()):
        sender.close()
    webhook_sender.cache_clear()
    opened.dead_letter_producer.close(2)
    opened.shared.close()
    worker_resources.cache_clear()
