"""Rows in which accepted records disappear: the topic is created again, or its head is deleted before it is decided."""

import subprocess
import sys
import time

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from service.stream import topics
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario


def run_command(scenario: Scenario, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `coupons` with the settings of the stack."""
    command = [sys.executable, "-m", "service.cli", *arguments]
    return subprocess.run(
        command, env=scenario.stack.environment, capture_output=True, text=True, timeout=60, check=False
    )


@row(47, "log", "its topic is deleted and created again", seconds=40)
def test_the_topic_is_created_again(scenario: Scenario, faults: FaultInjector) -> None:
    """Nothing is accepted or decided until an operator adopts the topic; what was undecided is recorded as lost."""
    settings = scenario.system.settings
    coupon = scenario.system.make_coupon(1000)
    before = [scenario.submit(coupon, user) for user in range(1, 31)]
    with scenario.under_load():
        admin = topics.build_admin(settings)
        admin.delete_topics([Topic.ISSUE_COUPON.value])[Topic.ISSUE_COUPON.value].result(10)
        scenario.system.eventually(lambda: topics.find(admin, Topic.ISSUE_COUPON) is None)
        topics.create_missing(settings)
        scenario.becomes_unready("api", "issuer")
        named = scenario.system.eventually(lambda: "was created again" in scenario.process_log("issuer"))
        faults.confirm(named, "the issuer names the reason")
        answer = scenario.system.request_issuance(coupon, 31)
        scenario.check(answer is not None and answer.status_code == 503, "nothing is accepted")
        scenario.check(run_command(scenario, "verify").returncode == 1, "the proof fails until the topic is adopted")
        since = time.monotonic()
        adopted = run_command(scenario, "log", "adopt")
        scenario.check(adopted.returncode == 0, adopted.stderr)
        scenario.recovers(since)
        states = {scenario.system.wait_until_final(request_id)["state"] for request_id in before}
        scenario.check(states <= {"issued", "dead"}, states)


@row(48, "log", "its head is deleted before it is decided", seconds=40)
def test_the_head_is_deleted(scenario: Scenario, faults: FaultInjector) -> None:
    """The partition stops and says so; after `coupons log skip` the lost requests are dead and the others go on."""
    coupon = scenario.system.make_coupon(1000)
    partition = partition_of(coupon, scenario.system.settings.topic_partitions)
    with scenario.under_load():
        with faults.frozen("issuer"):
            lost = [scenario.submit(coupon, user) for user in range(1, 11)]
            admin = AdminClient({"bootstrap.servers": scenario.stack.kafka_bootstrap_servers})
            end = TopicPartition(Topic.ISSUE_COUPON, partition, -1)
            first = admin.delete_records([end])[end].result(10).low_watermark
            kept = [scenario.submit(coupon, user) for user in range(11, 21)]
        scenario.becomes_unready("issuer")
        verified = run_command(scenario, "verify")
        found = verified.returncode == 1 and f"to {first - 1} were deleted before they were decided" in verified.stdout
        faults.confirm(found, verified.stdout)
        since = time.monotonic()
        skipped = run_command(scenario, "log", "skip", "--reason", "a test")
        scenario.check(skipped.returncode == 0, skipped.stderr)
        scenario.recovers(since)
        codes = [scenario.system.wait_until_final(request_id)["code"] for request_id in lost]
        # the broker may have sent the first ones before they were deleted; these are issued
        scenario.check(codes[-1] == "lost" and codes == sorted(codes, key=lambda code: code == "lost"), codes)
        states = {scenario.system.wait_until_final(request_id)["state"] for request_id in kept}
        scenario.check(states == {"issued"}, states)
        again = scenario.submit(coupon, 10)
        scenario.check(scenario.system.wait_until_final(again)["state"] == "issued", "a lost user may request again")
