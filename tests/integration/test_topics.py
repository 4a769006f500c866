"""The topics are made as asked, and any other shape is told, never worked with."""

from collections.abc import Iterator

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from service.config import Settings
from service.domain.errors import Misconfigured, Unavailable
from service.stream import topics
from service.stream.topics import Topic
from tests.waiting import eventually


def test_both_topics_have_the_asked_shape(settings: Settings) -> None:
    """Step 3: made once, found as wanted ever after, by as many processes as start."""
    topics.ensure_topics(settings)
    topics.ensure_topics(settings)

    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    for topic in Topic:
        assert len(topics._describe(admin, topic).partitions) == settings.topic_partitions
        config = _config(admin, topic)
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert config["retention.ms"] == "-1"
        assert config["min.insync.replicas"] == str(settings.topic_min_insync_replicas)


def _config(admin: AdminClient, topic: Topic) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic.value)
    found = admin.describe_configs([resource])[resource].result(10)
    return {name: entry.value for name, entry in found.items()}


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"topic_partitions": 7}, ["partitions (TOPIC_PARTITIONS) is 6, 7 is needed"]),
        ({"topic_partitions": 5}, ["partitions (TOPIC_PARTITIONS) is 6, 5 is needed"]),
        ({"topic_replication": 2}, ["replicas (TOPIC_REPLICATION) is 1, 2 is needed"]),
        (
            {"topic_partitions": 1, "topic_replication": 3},
            ["partitions (TOPIC_PARTITIONS) is 6, 1 is needed", "replicas (TOPIC_REPLICATION) is 1, 3 is needed"],
        ),
    ],
)
def test_a_topic_of_another_shape_is_refused(change: dict[str, int], faults: list[str], settings: Settings) -> None:
    """P3: with another partition count coupons would change partitions; every difference of both topics is named."""
    with pytest.raises(Misconfigured) as caught:
        topics.ensure_topics(settings.model_copy(update=change))

    assert caught.value.faults == tuple(f"topic {topic}: {fault}" for topic in Topic for fault in faults)


@pytest.fixture
def create_time(settings: Settings) -> Iterator[None]:
    """The topic of requests carries the producers' clocks, for as long as the test runs."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})

    def stamp(with_: str) -> None:
        entry = ConfigEntry("message.timestamp.type", with_, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, Topic.ISSUE_COUPON.value, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(10)
        eventually(lambda: _config(admin, Topic.ISSUE_COUPON)["message.timestamp.type"] == with_)

    stamp("CreateTime")
    yield
    stamp("LogAppendTime")


@pytest.mark.usefixtures("create_time")
def test_a_producers_clock_is_refused(settings: Settings) -> None:
    """Step 2: windows of foreign records are judged by the broker's clock, so the topic must carry it."""
    with pytest.raises(Misconfigured, match=r"message\.timestamp\.type is CreateTime, LogAppendTime is needed"):
        topics.ensure_topics(settings)


def test_a_topic_has_an_id_of_its_own(settings: Settings) -> None:
    """Step 4: the id of a topic's life tells it from another life of the same name."""
    ids = {topics.topic_id(settings, topic) for topic in Topic}

    assert len(ids) == 2
    assert topics.topic_id(settings, Topic.ISSUE_COUPON) in ids


def test_kafka_away_is_unavailable_not_misconfigured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: a process that starts before Kafka waits for it, so it must be told from a wrong shape."""
    monkeypatch.setattr(topics, "_TIMEOUT_SECONDS", 1.0)
    away = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:9"})

    with pytest.raises(Unavailable):
        topics.ensure_topics(away)
    with pytest.raises(Unavailable):
        topics.topic_id(away, Topic.ISSUE_COUPON)
