"""Builds every Kafka client; each setting that is not obvious has its reason."""

import logging
import os
import socket
from typing import Any

from confluent_kafka import Consumer, Producer

from service.config import Settings
from service.limits import MAX_DEAD_LETTER_BYTES
from service.stream.connection import connection_settings, log_client_error
from service.stream.topics import Group

#: how the client.id of every issuer of this service begins; other members of the group are not ours
ISSUER_CLIENT_ID_PREFIX = "coupons-issuer-"


def issuer_client_id(settings: Settings) -> str:
    """Return the client.id of this process's issuer, which Kafka's tools show beside each partition."""
    return ISSUER_CLIENT_ID_PREFIX + (settings.issuer_instance or _process_name())


def client_id(role: str) -> str:
    """Return the client.id of another client of this process."""
    return f"coupons-{role}-{_process_name()}"


def _process_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def build_producer(settings: Settings) -> Producer:
    """Return a producer whose acknowledgement means: every in-sync replica has the record, once."""
    return Producer(
        {
            **_common(settings, client_id("producer")),
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": "murmur2_random",  # as the Java client, if the caller names no partition
            "delivery.timeout.ms": settings.produce_timeout_ms,
            "request.timeout.ms": settings.produce_timeout_ms,
            "message.max.bytes": MAX_DEAD_LETTER_BYTES,
            "linger.ms": 0.5,  # records of concurrent requests share a batch without a noticeable wait
            "queue.buffering.max.messages": 50_000,  # above it the API responds 503 at once
        }
    )


def build_issuer_consumer(settings: Settings) -> Consumer:
    """Return the issuer's consumer, which starts at the database's offset and never at Kafka's."""
    return Consumer(
        {
            **_common(settings, issuer_client_id(settings)),
            "group.id": Group.ISSUER,
            **({"group.instance.id": settings.issuer_instance} if settings.issuer_instance else {}),
            "partition.assignment.strategy": "cooperative-sticky",
            "auto.offset.reset": "error",  # an offset outside the log is reported, not replaced
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "session.timeout.ms": 6_000,
            "heartbeat.interval.ms": 500,  # a partition that moves waits for about one heartbeat: docs/decisions/0009
            "max.poll.interval.ms": 30_000,
            "fetch.wait.max.ms": 100,
            # fetch again only when the records of the last fetch are read: fewer and larger fetches under load
            "queued.min.messages": 1,
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 65_536,
        }
    )


def build_dead_letter_consumer(settings: Settings) -> Consumer:
    """Return the dead-letter listener's consumer; its work is idempotent, so Kafka's committed offsets suffice."""
    return Consumer(
        {
            **_common(settings, client_id("dead-letters")),
            "group.id": Group.DEAD_LETTERS,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 6_000,
        }
    )


def build_reader(settings: Settings) -> Consumer:
    """Return a consumer that is assigned manually, joins no group and commits nothing."""
    return Consumer(
        {
            **_common(settings, client_id("reader")),
            "group.id": "coupon.reader",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )


def build_offset_watcher(settings: Settings) -> Consumer:
    """Return a client that queries end offsets and reads nothing.

    It counts records behind an open transaction of another producer: they are undecided too.
    """
    return Consumer(
        {
            **_common(settings, client_id("watermark")),
            "group.id": "coupon.reader",
            "isolation.level": "read_uncommitted",
        }
    )


def _common(settings: Settings, client: str) -> dict[str, Any]:
    return {
        **connection_settings(settings),
        "client.id": client,
        "logger": logging.getLogger("librdkafka"),
        "error_cb": log_client_error,
        "reconnect.backoff.max.ms": 1_000,  # so that a broker that is back is used within a second
        "allow.auto.create.topics": False,
    }
