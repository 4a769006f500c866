"""The topics: their names and settings, creation, and the check of existing ones."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from service.config import Settings
from service.domain.errors import Misconfigured
from service.limits import MAX_DEAD_LETTER_BYTES, MAX_RECORD_BYTES
from service.log import get_logger
from service.log_events import LogEvent
from service.stream.errors import mapped_errors

_log = get_logger(__name__)
_TIMEOUT_SECONDS = 10.0


class Topic(StrEnum):
    """Every topic."""

    ISSUE_COUPON = "ISSUE_COUPON"
    DEAD_LETTERS = "ISSUE_COUPON.dlt"


_MAX_BYTES = {Topic.ISSUE_COUPON: MAX_RECORD_BYTES, Topic.DEAD_LETTERS: MAX_DEAD_LETTER_BYTES}


class Group(StrEnum):
    """Every consumer group; docs/decisions/0004 explains the second."""

    ISSUER = "coupon"
    DEAD_LETTERS = "coupon.dlt"


def ensure_topics(settings: Settings) -> None:
    """Create missing topics; raise Misconfigured with every setting of existing ones that differs."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    with mapped_errors():
        _create(admin, settings)
        faults = [fault for topic in Topic for fault in _faults(admin, topic, settings)]
    if faults:
        raise Misconfigured(faults)


def topic_id(settings: Settings, topic: Topic) -> str:
    """Return Kafka's id of the topic; a topic that was deleted and created again has another id."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    with mapped_errors():
        return str(_describe(admin, topic).topic_id)


def _create(admin: AdminClient, settings: Settings) -> None:
    wanted = [
        NewTopic(topic.value, settings.topic_partitions, settings.topic_replication, config=_config(topic, settings))
        for topic in Topic
    ]
    for topic, future in admin.create_topics(wanted, operation_timeout=_TIMEOUT_SECONDS).items():
        try:
            future.result(_TIMEOUT_SECONDS)
            _log.info(LogEvent.TOPIC_CREATED, topic=topic)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _config(topic: Topic, settings: Settings) -> dict[str, str]:
    return {
        "message.timestamp.type": "LogAppendTime",  # windows of foreign records are checked against the broker's clock
        "min.insync.replicas": str(settings.topic_min_insync_replicas),
        "retention.ms": "-1",  # the proof reads the log from its first record
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
        "max.message.bytes": str(_MAX_BYTES[topic]),
    }


def _faults(admin: AdminClient, topic: Topic, settings: Settings) -> list[str]:
    partitions = _describe(admin, topic).partitions
    replicas = min(len(partition.replicas) for partition in partitions)
    resource = ConfigResource(ResourceType.TOPIC, topic.value)
    config = _retry_metadata(lambda: admin.describe_configs([resource])[resource])
    found = {
        "partitions (TOPIC_PARTITIONS)": (len(partitions), settings.topic_partitions),
        "replicas (TOPIC_REPLICATION)": (replicas, settings.topic_replication),
        **{name: (config[name].value, wanted) for name, wanted in _config(topic, settings).items()},
    }
    return [f"topic {topic}: {what} is {has}, must be {wants}" for what, (has, wants) in found.items() if has != wants]


def _describe(admin: AdminClient, topic: Topic) -> Any:
    """Return the broker's description of the topic."""
    name = topic.value
    return _retry_metadata(
        lambda: admin.describe_topics(TopicCollection([name]), request_timeout=_TIMEOUT_SECONDS)[name]
    )


def _retry_metadata(ask: Callable[[], Future[Any]]) -> Any:
    """Return a broker's answer about a topic; repeat while a new topic is not known to every broker yet."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            return ask().result(_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
