"""The row with three brokers, of which the leader is killed; skipped if memory is short."""

import time
from collections.abc import Iterator

import pytest
from confluent_kafka.admin import AdminClient

from service.stream.topics import Topic
from stack.servers import kafka
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.fixtures.running import running
from tests.system import System


@pytest.fixture(scope="module")
def three_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The whole system on three brokers, each with a replica of every record."""
    if missing := kafka.memory_shortage(brokers=3):
        pytest.skip(missing)
    with running(tmp_path_factory.mktemp("brokers"), {"KAFKA_BROKERS": "3"}) as system:
        yield system


@pytest.fixture
def system_under_test(three_brokers: System) -> System:
    """The system that this module's rows run on."""
    return three_brokers


@row(15, "three brokers", "the leader of a partition is killed, twice", seconds=60, within=240)
def test_the_leader_is_killed(scenario: Scenario, faults: FaultInjector) -> None:
    """Another broker becomes leader: requests are accepted and issued while the killed one is still down."""
    with scenario.under_load():
        for _ in range(2):
            leader = f"kafka-{leader_of_partition_0(scenario)}"
            with faults.unavailable(leader):
                scenario.issues_on_every_partition(time.monotonic(), within_seconds=30)
                faults.confirm(leader != f"kafka-{leader_of_partition_0(scenario)}", "another broker is the leader")
            scenario.recovers(since=time.monotonic())


def leader_of_partition_0(scenario: Scenario) -> int:
    """Return the id of the broker that leads partition 0."""
    admin = AdminClient({"bootstrap.servers": scenario.stack.kafka_bootstrap_servers, "log_level": 0})
    return admin.list_topics(Topic.ISSUE_COUPON, timeout=10).topics[Topic.ISSUE_COUPON].partitions[0].leader
