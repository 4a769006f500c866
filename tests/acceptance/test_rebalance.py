"""Issuers that come, go and meet: each partition is decided by one at a time, and none is forgotten."""

import httpx
from confluent_kafka import Consumer, TopicPartition

from service.stream.topics import Group, Topic
from tests.acceptance.test_kills import under_load
from tests.system import System


def test_a_second_issuer_takes_its_share_and_gives_it_back(system: System) -> None:
    """A rebalance under load, in both directions: the proof holds, and each issuer was ready."""
    coupon = system.make_coupon(quantity=2_000)

    with under_load(system, coupon) as decided_some:
        decided_some.wait(10)
        url = system.stack.add_issuer("issuer-1")
        assert httpx.get(f"{url}/readyz").status_code == 200
        system.stack.stop("issuer-1")

    system.settle()
    issued = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'issued'"
    told = {one.user_id for one in system.history if one.coupon_id == coupon and one.outcome == "accepted"}
    assert system.count(issued, id=coupon) >= len(told)


def test_kafkas_own_offsets_follow(system: System) -> None:
    """Tools that show the lag of group `coupon` see how far the issuer is."""
    coupon = system.make_coupon(quantity=1)
    answer = system.ask(coupon, 1)
    assert answer is not None
    system.final(answer.json()["request_id"])
    partitions = range(system.settings.topic_partitions)
    consumer = Consumer({"bootstrap.servers": system.stack.kafka_bootstrap_servers, "group.id": Group.ISSUER})

    def committed() -> bool:
        wanted = [TopicPartition(Topic.ISSUE_COUPON, partition) for partition in partitions]
        followed = sum(max(at.offset, 0) for at in consumer.committed(wanted, timeout=5))
        return followed == system.count("SELECT sum(next_offset) FROM offsets")

    system.eventually(committed)
    consumer.close()
