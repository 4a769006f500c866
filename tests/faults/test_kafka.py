"""Rows in which Kafka is restarted, killed or frozen, or contains unreadable records."""

import time

from confluent_kafka.admin import AdminClient

from service.stream import topics
from service.stream.topics import Topic
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario

_DEAD_LETTERS = "SELECT count(*) FROM dead_letters"
_NOT_FORWARDED = f"{_DEAD_LETTERS} WHERE forwarded_at IS NULL"
#: not JSON, not an object, not an id, another schema, a NUL, a lone surrogate, almost a megabyte
_UNREADABLE = (
    None,
    b"",
    b"{",
    b"[]",
    b'{"userId":"seven","couponId":1,"requestTimeMillis":0}',
    b'{"version":99,"user":{"id":7}}',
    b'{"userId":\x007}',
    b'{"userId":"\\ud800"}',
    b"x" * 900_000,
)


@row(12, "log", "unreadable records between good ones", seconds=15)
def test_poison(scenario: Scenario, faults: FaultInjector) -> None:
    """Each becomes a dead letter at once; the good records are issued in order."""
    coupon = scenario.system.make_coupon(100)
    before = scenario.system.count(_DEAD_LETTERS)
    with scenario.under_load():
        request_ids = []
        for user, value in enumerate(_UNREADABLE, start=1):
            scenario.system.produce(coupon, value)
            request_ids.append(scenario.submit(coupon, user))
        made = scenario.system.eventually(lambda: scenario.system.count(_DEAD_LETTERS) - before >= len(_UNREADABLE))
        faults.confirm(made, "dead letters were made")
    sequences = [scenario.system.wait_until_final(request_id)["sequence"] for request_id in request_ids]
    scenario.check(sequences == list(range(1, len(_UNREADABLE) + 1)), sequences)


@row(13, "dead letters", "their topic is deleted and created again", seconds=40)
def test_the_dead_letter_topic_is_missing(scenario: Scenario, faults: FaultInjector) -> None:
    """Nothing else waits for the topic; once it exists again every dead letter is forwarded and confirmed."""
    coupon = scenario.system.make_coupon(10)
    with scenario.under_load():
        admin = AdminClient({"bootstrap.servers": scenario.stack.kafka_bootstrap_servers})
        admin.delete_topics([Topic.DEAD_LETTERS.value])[Topic.DEAD_LETTERS.value].result(10)
        scenario.system.eventually(lambda: Topic.DEAD_LETTERS not in admin.list_topics(timeout=5).topics)
        scenario.system.produce(coupon, b"{")
        scenario.system.eventually(lambda: scenario.system.count(_NOT_FORWARDED))
        faults.confirm(scenario.system.count(_NOT_FORWARDED), "a dead letter is not forwarded")
        issued = scenario.system.wait_until_final(scenario.submit(coupon, 1))["state"] == "issued"
        scenario.check(issued, "the partition continues")
        topics.create_missing(scenario.system.settings)
    scenario.system.eventually(lambda: not scenario.system.count(_NOT_FORWARDED))


@row(14, "Kafka", "clean restart ×5", seconds=60, within=240)
def test_clean_restarts(scenario: Scenario, faults: FaultInjector) -> None:
    """Stopped in order and started five times: users repeat their requests, and no other process restarts."""
    with scenario.under_load():
        for _ in range(5):
            since = time.monotonic()
            faults.stop("kafka")
            scenario.becomes_unready("api", "issuer")
            faults.start("kafka")
            scenario.recovers(since)


@row(15, "Kafka", "kill -9 and restart ×5", seconds=60, within=240)
def test_killed_and_restarted(scenario: Scenario, faults: FaultInjector) -> None:
    """Killed and started five times: acknowledged records are still there, and every process recovers by itself."""
    with scenario.under_load():
        for _ in range(5):
            since = time.monotonic()
            with faults.unavailable("kafka"):
                scenario.becomes_unready("api", "issuer")
            scenario.recovers(since)


@row(16, "Kafka", "SIGSTOP for longer than the produce timeout", seconds=20)
def test_frozen(scenario: Scenario, faults: FaultInjector) -> None:
    """The API answers 503 within the deadline; a record that arrives late is the same request as its repeat."""
    coupon = scenario.system.make_coupon(10)
    with scenario.under_load():
        with faults.frozen("kafka"):
            answer = scenario.system.request_issuance(coupon, 1)
            scenario.check(answer is not None and answer.status_code == 503, answer)
            scenario.becomes_unready("api")
            scenario.wait_for_unknown_outcome()
        scenario.recovers(since=time.monotonic())
        scenario.check(
            scenario.system.wait_until_final(scenario.submit(coupon, 1))["state"] == "issued", "the repeat is issued"
        )
    rows = scenario.system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon)
    scenario.check(rows == 1, f"{rows} rows of one request")
