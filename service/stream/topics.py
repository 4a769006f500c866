"""The topics: their names and settings, creation, and the comparison of existing ones with the settings."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import ConfigResource, NewTopic, ResourceType  # type: ignore[attr-defined]

from service.config import Settings
from service.domain.errors import Misconfigured, NotPermitted, Unavailable
from service.limits import MAX_DEAD_LETTER_BYTES, MAX_RECORD_BYTES
from service.log import get_logger
from service.log_events import LogEvent
from service.stream.connection import Admin
from service.stream.errors import mapped_errors

_log = get_logger(__name__)
_TIMEOUT_SECONDS = 10.0
#: how long a request waits for the broker that the client knows as controller, before it looks for another one
_KNOWN_CONTROLLER_SECONDS = 0.5
_NO_RIGHT = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
_NO_ANSWER = (KafkaError._TIMED_OUT, KafkaError._TRANSPORT)  # noqa: SLF001  # public, by the client's naming


class Topic(StrEnum):
    """Every topic."""

    ISSUE_COUPON = "ISSUE_COUPON"
    DEAD_LETTERS = "ISSUE_COUPON.dlt"


_MAX_BYTES = {Topic.ISSUE_COUPON: MAX_RECORD_BYTES, Topic.DEAD_LETTERS: MAX_DEAD_LETTER_BYTES}


class Group(StrEnum):
    """Every consumer group; docs/decisions/0004 explains the second."""

    ISSUER = "coupon"
    DEAD_LETTERS = "coupon.dlt"


class TopicDescription(NamedTuple):
    """What the brokers say about a topic."""

    #: a topic that was deleted and created again has another id
    id: str
    partitions: int
    #: of the partition with the fewest
    replicas: int


class TopicState(NamedTuple):
    """A topic as it is, compared with what the settings ask for."""

    topic: str
    #: None: it does not exist
    partitions: int | None
    replicas: int | None
    #: what differs, in words
    differences: tuple[str, ...]


def build_admin(settings: Settings) -> Admin:
    """Return an admin client, which connects at first use."""
    return Admin(settings, **{"allow.auto.create.topics": False, "reconnect.backoff.max.ms": 1_000})


def count_brokers(admin: Admin, timeout_seconds: float) -> int:
    """Return how many brokers the cluster has; raise Unavailable if none answers."""
    with mapped_errors(admin):
        return len(admin.list_topics(Topic.ISSUE_COUPON.value, timeout=timeout_seconds).brokers)


def create_missing(settings: Settings) -> list[Topic]:
    """Create the topics that do not exist and return them.

    Topics that exist need no right to create. Raises Misconfigured with every setting of existing ones that differs,
    and NotPermitted if one is missing and must not be created.
    """
    admin = build_admin(settings)
    missing = [topic for topic in Topic if find(admin, topic) is None]
    with mapped_errors(admin):
        new = [_new_topic(topic, settings) for topic in missing]
        asked = admin.create_topics(new, operation_timeout=_TIMEOUT_SECONDS) if new else {}
        created = []
        for topic, future in asked.items():
            try:
                future.result(_TIMEOUT_SECONDS)
                created.append(Topic(topic))
                _log.info(LogEvent.TOPIC_CREATED, topic=topic)
            except KafkaException as error:
                code = error.args[0].code()
                if code in _NO_RIGHT:
                    raise NotPermitted("Kafka", _how_to_create(missing, settings)) from error
                if code != KafkaError.TOPIC_ALREADY_EXISTS:  # another process may have created it meanwhile
                    raise
        for topic in asked:  # until every broker describes it
            _retry_metadata(partial(admin.describe_topics, TopicCollection([topic])))
    check(settings)
    return created


def _new_topic(topic: Topic, settings: Settings) -> NewTopic:
    return NewTopic(topic.value, settings.topic_partitions, settings.topic_replication, config=_config(topic, settings))


def _how_to_create(missing: Iterable[Topic], settings: Settings) -> str:
    size = f"{settings.topic_partitions} partitions, {settings.topic_replication} replicas"
    topics = "; ".join(f"{topic} with {size}, {_wanted(topic, settings)}" for topic in missing)
    return (
        "Create on topics that do not exist. Run `coupons topics create` as a user with that right, or have them"
        f" created: {topics}"
    )


def _wanted(topic: Topic, settings: Settings) -> str:
    return ", ".join(f"{name}={value}" for name, value in _config(topic, settings).items())


def check(settings: Settings) -> None:
    """Raise Misconfigured with every setting of a topic that differs, Unavailable if one does not exist.

    More partitions than TOPIC_PARTITIONS are allowed: a producer of this service names the partition. Settings that may
    not be read are logged.
    """
    admin = build_admin(settings)
    faults: list[str] = []
    for topic in Topic:
        faults += too_few(topic, describe(admin, topic), settings)
        try:
            faults += other_settings(admin, topic, settings)
        except NotPermitted as error:
            _log.warning(LogEvent.TOPIC_SETTINGS_UNKNOWN, reason=str(error))
    if faults:
        raise Misconfigured(faults)


def states(settings: Settings) -> list[TopicState]:
    """Return every topic as it is; raise Unavailable."""
    admin = build_admin(settings)
    return [_state(admin, topic, settings) for topic in Topic]


def _state(admin: Admin, topic: Topic, settings: Settings) -> TopicState:
    found = find(admin, topic)
    if found is None:
        return TopicState(topic, None, None, ("it does not exist: run `coupons topics create`",))
    differences = [*too_few(topic, found, settings), *too_many(topic, found, settings)]
    try:
        differences += other_settings(admin, topic, settings)
    except NotPermitted as error:
        differences.append(str(error))
    return TopicState(topic, found.partitions, found.replicas, tuple(differences))


def describe(admin: Admin, topic: Topic) -> TopicDescription:
    """Return the topic's description; raise Unavailable if it does not exist."""
    description = find(admin, topic)
    if description is None:
        raise Unavailable("Kafka", f"topic {topic} does not exist: run `coupons migrate`")
    return description


def find(admin: Admin, topic: Topic, timeout_seconds: float | None = None) -> TopicDescription | None:
    """Return the topic's description, or None if the brokers say that it does not exist; raise Unavailable."""
    with mapped_errors(admin):
        try:
            found = request_description(admin, topic, timeout_seconds or _TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                return None
            if error.args[0].code() in _NO_RIGHT:
                raise NotPermitted("Kafka", f"Describe on topic {topic}") from error
            raise
    replicas = min((len(partition.replicas) for partition in found.partitions), default=0)
    return TopicDescription(str(found.topic_id), len(found.partitions), replicas)


def request_description(admin: Admin, topic: Topic, timeout_seconds: float, **options: Any) -> Any:
    """Return the brokers' full description of a topic; raise KafkaException or TimeoutError.

    The client sends this request to the broker that it knows as controller, and each response tells it the present one.
    While that broker is down the request would wait for it: so it gets a moment only, and then the metadata, which any
    broker has, tell the client the present controller.
    """
    deadline = time.monotonic() + timeout_seconds
    try:
        return _describe(admin, topic, min(_KNOWN_CONTROLLER_SECONDS, timeout_seconds / 2), **options)
    except (TimeoutError, KafkaException) as error:  # no answer: the controller may be another one
        if isinstance(error, KafkaException) and error.args[0].code() not in _NO_ANSWER:
            raise
    admin.list_topics(topic.value, timeout=max(0.0, deadline - time.monotonic()))
    return _describe(admin, topic, max(0.0, deadline - time.monotonic()), **options)


def _describe(admin: Admin, topic: Topic, timeout_seconds: float, **options: Any) -> Any:
    asked = admin.describe_topics(TopicCollection([topic.value]), request_timeout=timeout_seconds, **options)
    return asked[topic.value].result(timeout_seconds)


def too_few(topic: Topic, description: TopicDescription, settings: Settings) -> list[str]:
    """Return a fault for each number in which the topic is smaller than the settings say."""
    found = {
        "partitions (TOPIC_PARTITIONS)": (description.partitions, settings.topic_partitions),
        "replicas (TOPIC_REPLICATION)": (description.replicas, settings.topic_replication),
    }
    return [f"topic {topic}: {what} is {has}, must be {wants}" for what, (has, wants) in found.items() if has < wants]


def too_many(topic: Topic, description: TopicDescription, settings: Settings) -> list[str]:
    """Return why an operator should act if the topic has more partitions than TOPIC_PARTITIONS."""
    if description.partitions <= settings.topic_partitions:
        return []
    numbers = f"has {description.partitions} partitions, TOPIC_PARTITIONS is {settings.topic_partitions}"
    return [f"topic {topic} {numbers}: other producers may choose a partition on which their records are poison"]


def other_settings(admin: Admin, topic: Topic, settings: Settings) -> list[str]:
    """Return a fault for each setting of an existing topic that differs.

    Raises Unavailable, and NotPermitted with the settings that must not be read.
    """
    resource = ConfigResource(ResourceType.TOPIC, topic.value)
    with mapped_errors(admin):
        try:
            found = _retry_metadata(partial(admin.describe_configs, [resource]))
        except KafkaException as error:
            if error.args[0].code() not in _NO_RIGHT:
                raise
            unknown = f"DescribeConfigs on topic {topic}; not compared: {_wanted(topic, settings)}"
            raise NotPermitted("Kafka", unknown) from error
    return [
        f"topic {topic}: {name} is {found[name].value}, must be {wanted}"
        for name, wanted in _config(topic, settings).items()
        if found[name].value != wanted
    ]


def _config(topic: Topic, settings: Settings) -> dict[str, str]:
    return {
        "message.timestamp.type": "LogAppendTime",  # windows of foreign records are checked against the broker's clock
        "min.insync.replicas": str(settings.topic_min_insync_replicas),
        "retention.ms": "-1",  # the proof reads the log from its first record
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
        "max.message.bytes": str(_MAX_BYTES[topic]),
    }


def _retry_metadata(ask: Callable[[], Mapping[Any, "Future[Any]"]]) -> Any:
    """Return a broker's answer about one topic; repeat while a new topic is not known to every broker yet."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        try:
            (answer,) = ask().values()
            return answer.result(_TIMEOUT_SECONDS)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART or time.monotonic() > deadline:
                raise
        time.sleep(0.1)
