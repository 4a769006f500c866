"""Three brokers, of which one is killed; left out where memory is short."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from service.stream.topics import Topic
from stack import memory
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene
from tests.fixtures.running import running
from tests.system import System


@pytest.fixture(scope="module")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Everything on three brokers that each keep every record."""
    if missing := memory.lack(brokers=3):
        pytest.skip(missing)
    with running(tmp_path_factory.mktemp("brokers"), {"KAFKA_BROKERS": "3"}) as system:
        yield system


@pytest.fixture
def ground(three_brokers: System) -> System:
    """What the rows of this module run on."""
    return three_brokers


@row(15, "three brokers", "the leader of a partition is killed, twice", seconds=60, within=240)
def test_the_leader_is_killed(scene: Scene, hands: Hands) -> None:
    """Another broker leads: requests are accepted and issued while the killed one is still away."""
    with scene.users():
        for _ in range(2):
            leader = f"kafka-{leader_of_partition_0(scene)}"
            with hands.away(leader):
                scene.issues_everywhere(time.monotonic(), within_seconds=30)
                hands.bitten(leader != f"kafka-{leader_of_partition_0(scene)}", "another one leads")
            scene.recovers(since=time.monotonic())


def leader_of_partition_0(scene: Scene) -> int:
    """The number of the broker that leads it."""
    admin = AdminClient({"bootstrap.servers": scene.stack.kafka_bootstrap_servers, "log_level": 0})
    return admin.list_topics(Topic.ISSUE_COUPON, timeout=10).topics[Topic.ISSUE_COUPON].partitions[0].leader
