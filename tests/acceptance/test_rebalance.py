"""Rebalances: one issuer decides a partition at a time, and no partition is left out."""

import httpx
from confluent_kafka import Consumer, TopicPartition

from service.stream.topics import Group, Topic
from tests.acceptance.test_kills import under_load
from tests.system import System


def test_a_second_issuer_joins_and_leaves(system: System) -> None:
    """A rebalance under load, in both directions: the promises hold, and the second issuer becomes ready."""
    coupon = system.make_coupon(quantity=2_000)

    with under_load(system, coupon) as decided_some:
        decided_some.wait(10)
        url = system.stack.add_issuer("issuer-1")
        try:
            assert httpx.get(f"{url}/readyz").status_code == 200
        finally:
            system.stack.stop("issuer-1")

    system.wait_until_idle()
    issued = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'issued'"
    answers = [answer for answer in system.history if answer.coupon_id == coupon]
    accepted = {answer.user_id for answer in answers if answer.outcome == "accepted"}
    assert system.count(issued, id=coupon) >= len(accepted)


def test_committed_offsets_follow(system: System) -> None:
    """Kafka's committed offsets of group `coupon` reach the database's, so that lag tools work."""
    coupon = system.make_coupon(quantity=1)
    answer = system.request_issuance(coupon, 1)
    assert answer is not None
    system.wait_until_final(answer.json()["request_id"])
    partitions = range(system.settings.topic_partitions)
    consumer = Consumer({"bootstrap.servers": system.stack.kafka_bootstrap_servers, "group.id": Group.ISSUER})

    def committed() -> bool:
        requested = [TopicPartition(Topic.ISSUE_COUPON, partition) for partition in partitions]
        total = sum(max(at.offset, 0) for at in consumer.committed(requested, timeout=5))
        return total == system.count("SELECT sum(next_offset) FROM offsets")

    system.eventually(committed)
    consumer.close()
