"""The settings of every Kafka client, each with its reason."""

import logging
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer

from service.config import Settings
from service.stream.topics import MAX_RECORD_BYTES, Group, Topic

_log = logging.getLogger(__name__)


def build_producer(settings: Settings) -> Producer:
    """A producer whose acknowledgement means: in the log of every in-sync replica, once."""
    return Producer(
        {
            **_common(settings),
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",  # as the Java client's, where the caller names no partition
            "delivery.timeout.ms": settings.produce_timeout_ms,
            "request.timeout.ms": settings.produce_timeout_ms,
            "message.max.bytes": MAX_RECORD_BYTES[Topic.DEAD_LETTERS],
            "linger.ms": 0.5,  # many press at once: their records travel together, and nobody waits long for others
            "queue.buffering.max.messages": 50_000,  # above it an API answers 503 at once
        }
    )


def build_issuer_consumer(settings: Settings) -> Consumer:
    """The issuer's consumer: it starts where the database says, never where Kafka does."""
    return Consumer(
        {
            **_common(settings),
            "group.id": Group.ISSUER,
            **({"group.instance.id": settings.issuer_instance} if settings.issuer_instance else {}),
            "partition.assignment.strategy": "cooperative-sticky",
            "auto.offset.reset": "error",  # an offset outside the log is said, not guessed
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 500,  # a partition that moves waits for about one: docs/decisions/0009
            "max.poll.interval.ms": 30_000,
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 65_536,
        }
    )


def build_dead_letter_consumer(settings: Settings) -> Consumer:
    """The dead-letter listener's consumer; what it does is idempotent, so Kafka's own offsets serve."""
    return Consumer(
        {
            **_common(settings),
            "group.id": Group.DEAD_LETTERS,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6_000,
        }
    )


def build_reader(settings: Settings) -> Consumer:
    """A consumer that is assigned by hand, belongs to no group in earnest and commits nothing."""
    return Consumer(
        {
            **_common(settings),
            "group.id": "coupon.reader",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )


def build_offset_watcher(settings: Settings) -> Consumer:
    """Asks where the log ends, and reads nothing: open transactions of others count, what follows them is undecided."""
    return Consumer({**_common(settings), "group.id": "coupon.reader", "isolation.level": "read_uncommitted"})


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "logger": logging.getLogger("librdkafka"),
        "error_cb": _say,
        "reconnect.backoff.max.ms": 1_000,
        "allow.auto.create.topics": False,
    }


def _say(error: KafkaError) -> None:
    _log.warning("kafka client: %s", error)
