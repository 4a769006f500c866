"""What tasks use, opened once in each process at its first task: a client made before a fork is dead after it."""

from dataclasses import dataclass
from functools import cache

from confluent_kafka import Producer

from service import config, resources
from service.domain.request_id import RequestIds
from service.resources import Resources
from service.stream import clients
from service.usecases.recover import Recoverer
from service.webhooks.sender import WebhookSender

#: all the time that a POST to the webhook's receiver may take
WEBHOOK_TIMEOUT_SECONDS = 2.5
#: work claimed and not done is claimed again after it; above the longest task, below the visibility timeout
LEASE_SECONDS = 7.5


@dataclass(frozen=True, slots=True)
class WorkerResources:
    """The clients of a worker's process."""

    shared: Resources
    ids: RequestIds
    recoverer: Recoverer
    producer: Producer
    sender: WebhookSender | None


@cache
def worker_resources() -> WorkerResources:
    """This process's clients; raises Unavailable when the database or Kafka is away."""
    settings = config.load()
    common = resources.open_resources(settings, "worker", connections=2)
    notices = bool(settings.webhook_url)
    return WorkerResources(
        common,
        resources.request_ids(settings),
        resources.recoverer(common),
        clients.build_producer(settings),
        WebhookSender(settings.webhook_url, settings.webhook_secret.get_secret_value(), WEBHOOK_TIMEOUT_SECONDS)
        if notices
        else None,
    )


def close() -> None:
    """Closes what was opened, in mirror order."""
    if not worker_resources.cache_info().currsize:
        return
    opened = worker_resources()
    if opened.sender:
        opened.sender.close()
    opened.producer.flush(2)
    opened.shared.close()
    worker_resources.cache_clear()
