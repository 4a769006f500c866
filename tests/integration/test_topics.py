"""Topics are created with the configured shape; a topic of another shape is refused."""

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
from service.resources import Resources
from service.stream import topics
from service.stream.topics import Topic
from tests.waiting import eventually


def test_both_topics_have_the_configured_shape(settings: Settings) -> None:
    """Topics are created once; every later start, of any process, accepts them."""
    topics.create_missing(settings)
    topics.create_missing(settings)

    admin = topics.build_admin(settings)
    for topic in Topic:
        assert topics.describe(admin, topic).partitions == settings.topic_partitions
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
        ({"topic_partitions": 7}, ["partitions (TOPIC_PARTITIONS) is 6, must be 7"]),
        ({"topic_replication": 2}, ["replicas (TOPIC_REPLICATION) is 1, must be 2"]),
        (
            {"topic_partitions": 8, "topic_replication": 3},
            ["partitions (TOPIC_PARTITIONS) is 6, must be 8", "replicas (TOPIC_REPLICATION) is 1, must be 3"],
        ),
    ],
)
def test_a_topic_of_another_shape_is_refused(change: dict[str, int], faults: list[str], settings: Settings) -> None:
    """P3: another number of partitions would move coupons; every difference of both topics is named."""
    with pytest.raises(Misconfigured) as caught:
        topics.check(settings.model_copy(update=change))

    assert caught.value.faults == tuple(f"topic {topic}: {fault}" for topic in Topic for fault in faults)


@pytest.fixture
def create_time(settings: Settings) -> Iterator[None]:
    """Switch the request topic to the producers' timestamps while the test runs."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})

    def set_timestamp_type(timestamp_type: str) -> None:
        entry = ConfigEntry("message.timestamp.type", timestamp_type, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, Topic.ISSUE_COUPON.value, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(10)
        eventually(lambda: _config(admin, Topic.ISSUE_COUPON)["message.timestamp.type"] == timestamp_type)

    set_timestamp_type("CreateTime")
    yield
    set_timestamp_type("LogAppendTime")


@pytest.mark.usefixtures("create_time")
def test_a_topic_with_producers_timestamps_is_refused(settings: Settings) -> None:
    """Foreign records are checked against the window by the broker's append time, so the topic must record it."""
    with pytest.raises(Misconfigured, match=r"message\.timestamp\.type is CreateTime, must be LogAppendTime"):
        topics.check(settings)


@pytest.mark.usefixtures("create_time")
def test_settings_that_change_later_are_an_alert(resources: Resources) -> None:
    """A running process does not stop for them, and an operator has to act."""
    resources.log_watch.compare_settings()

    assert "message.timestamp.type is CreateTime, must be LogAppendTime" in (resources.log_watch.alert or "")
    assert resources.log_watch.fault is None


def test_a_topic_has_an_id_of_its_own(settings: Settings) -> None:
    """The topic id distinguishes two lives of a topic with one name."""
    admin = topics.build_admin(settings)
    ids = {topics.describe(admin, topic).id for topic in Topic}

    assert len(ids) == 2
    assert topics.describe(admin, Topic.ISSUE_COUPON).id in ids


def test_more_partitions_than_configured_are_an_alert(settings: Settings) -> None:
    """P3: a producer of this service names the partition, so added partitions move no coupon."""
    smaller = settings.model_copy(update={"topic_partitions": 5})
    topics.check(smaller)

    description = topics.describe(topics.build_admin(settings), Topic.ISSUE_COUPON)
    assert "has 6 partitions, TOPIC_PARTITIONS is 5" in topics.too_many(Topic.ISSUE_COUPON, description, smaller)[0]


def test_an_unreachable_kafka_is_unavailable_not_misconfigured(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: a process that starts before Kafka waits for it, so the error must differ from that of a wrong shape."""
    monkeypatch.setattr(topics, "_TIMEOUT_SECONDS", 1.0)
    unreachable = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:9"})

    with pytest.raises(Unavailable):
        topics.check(unreachable)
    with pytest.raises(Unavailable):
        topics.create_missing(unreachable)
