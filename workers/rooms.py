"""What tasks use, opened once in each process at its first task: a client made before a fork is dead after it."""

from dataclasses import dataclass
from functools import cache

from confluent_kafka import Producer

from service import bootstrap, config
from service.bootstrap import Common
from service.domain.request_id import RequestIds
from service.stream import clients
from service.usecases.recover import Recoverer
from service.webhooks.sender import WebhookSender

#: all the time that a POST to the webhook's receiver may take
WEBHOOK_SECONDS = 2.5
#: work claimed and not done is claimed again after it; above the longest task, below the visibility timeout
LEASE_SECONDS = 7.5


@dataclass(frozen=True, slots=True)
class Rooms:
    """The clients of a worker's process."""

    common: Common
    ids: RequestIds
    recoverer: Recoverer
    producer: Producer
    sender: WebhookSender | None


@cache
def rooms() -> Rooms:
    """This process's clients; raises Unavailable when the database or Kafka is away."""
    settings = config.load()
    common = bootstrap.build_common(settings, "worker", connections=2)
    notices = bool(settings.webhook_url)
    return Rooms(
        common,
        bootstrap.request_ids(settings),
        bootstrap.recoverer(common),
        clients.build_producer(settings),
        WebhookSender(settings.webhook_url, settings.webhook_secret.get_secret_value(), WEBHOOK_SECONDS)
        if notices
        else None,
    )


def close() -> None:
    """Closes what was opened, in mirror order."""
    if not rooms.cache_info().currsize:
        return
    opened = rooms()
    if opened.sender:
        opened.sender.close()
    opened.producer.flush(2)
    opened.common.close()
    rooms.cache_clear()
