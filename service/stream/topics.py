"""The topics, the shape they must have, and the code that makes them or refuses others."""

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from service.config import Settings
from service.domain.errors import Misconfigured, Unavailable

_log = logging.getLogger(__name__)
_TIMEOUT_SECONDS = 10.0


class Topic(StrEnum):
    """Every topic there is."""

    ISSUE_COUPON = "ISSUE_COUPON"
    DEAD_LETTERS = "ISSUE_COUPON.dlt"


#: a dead letter is its record and the headers that say why
MAX_RECORD_BYTES = {Topic.ISSUE_COUPON: 1_048_588, Topic.DEAD_LETTERS: 2_097_152}


class Group(StrEnum):
    """Every consumer group there is; see docs/decisions/0004 for the second."""

    ISSUER = "coupon"
    DEAD_LETTERS = "coupon.dlt"


def ensure_topics(settings: Settings) -> None:
    """Makes the topics that are absent; raises Misconfigured naming each that has another shape than asked for."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    with _answering():
        _create(admin, settings)
        faults = [fault for topic in Topic for fault in _faults(admin, topic, settings)]
    if faults:
        raise Misconfigured(faults)


def topic_id(settings: Settings, topic: Topic) -> str:
    """The id that Kafka gave this life of the topic; a topic deleted and made again has another."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers, "log_level": 0})
    with _answering():
        return str(_describe(admin, topic).topic_id)


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise Unavailable("Kafka", str(error.args[0])) from error
    except TimeoutError as error:
        raise Unavailable("Kafka", "no broker answered in time") from error


def _create(admin: AdminClient, settings: Settings) -> None:
    wanted = [
        NewTopic(topic.value, settings.topic_partitions, settings.topic_replication, config=_config(topic, settings))
        for topic in Topic
    ]
    for topic, future in admin.create_topics(wanted, operation_timeout=_TIMEOUT_SECONDS).items():
        try:
            future.result(_TIMEOUT_SECONDS)
            _log.info("topic made: %s", topic)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _config(topic: Topic, settings: Settings) -> dict[str, str]:
    return {
        "message.timestamp.type": "LogAppendTime",  # windows are judged by the broker's clock
        "min.insync.replicas": str(settings.topic_min_insync_replicas),
        "retention.ms": "-1",  # the log is the evidence that the proof reads
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
        "max.message.bytes": str(MAX_RECORD_BYTES[topic]),
    }


def _faults(admin: AdminClient, topic: Topic, settings: Settings) -> list[str]:
    partitions = _describe(admin, topic).partitions
    replicas = min(len(partition.replicas) for partition in partitions)
    resource = ConfigResource(ResourceType.TOPIC, topic.value)
    config = _known(lambda: admin.describe_configs([resource])[resource])
    found = {
        "partitions (TOPIC_PARTITIONS)": (len(partitions), settings.topic_partitions),
        "replicas (TOPIC_REPLICATION)": (replicas, settings.topic_replication),
        **{name: (config[name].value, wanted) for name, wanted in _config(topic, settings).items()},
    }
    return [
        f"topic {topic}: {what} is {has}, {wants} is needed" for what, (has, wants) in found.items() if has != wants
    ]


def _describe(admin: AdminClient, topic: Topic) -> Any:
    """The topic as a broker has it."""
    name = topic.value
    return _known(lambda: admin.describe_topics(TopicCollection([name]), request_timeout=_TIMEOUT_SECONDS)[name])


def _known(ask: Callable[[], Future[Any]]) -> Any:
    """A broker's answer about a topic; one that was made a moment ago may take another to be known to every broker."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            return ask().result(_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
