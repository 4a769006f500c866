"""Requests that fail, each by its fate."""

import httpx
from confluent_kafka import Consumer

from service.domain.request import LogPosition
from service.stream.dead_letter_records import parse_origin
from service.stream.topics import Topic
from tests.system import System


def test_a_failed_request_keeps_its_place_and_is_issued_by_a_retry(system: System) -> None:
    """A record's own failure holds its seat; Celery issues it a second later, as its second attempt."""
    coupon = system.make_coupon(quantity=3)

    failing = system.ask(coupon, 1, fault="22012 1")
    others = [system.ask(coupon, user) for user in (2, 3)]

    assert failing is not None
    page = system.final(failing.json()["request_id"])
    assert (page["state"], page["attempts"], page["sequence"]) == ("issued", 2, 3)
    assert [system.final(other.json()["request_id"])["sequence"] for other in others if other] == [1, 2]


def test_flower_shows_the_workers_and_the_retries(system: System) -> None:
    """Flower lists the worker and shows a retried task."""
    coupon = system.make_coupon(quantity=1)
    failing = system.ask(coupon, 1, fault="22012 2")
    assert failing is not None
    assert system.final(failing.json()["request_id"])["attempts"] == 3

    def retried() -> bool:
        tasks = httpx.get(f"{system.stack.flower_url}/api/tasks", params={"taskname": "retry.issue"}).json()
        return any(task["retries"] for task in tasks.values())

    system.eventually(retried)
    assert httpx.get(f"{system.stack.flower_url}/api/workers", params={"refresh": "true"}).json()


def test_a_request_that_never_succeeds_is_dead_and_its_seat_is_free(system: System) -> None:
    """After three attempts: a dead letter, a notice, and the same user may press again."""
    coupon = system.make_coupon(quantity=1)

    failing = system.ask(coupon, 1, fault="22012 9")

    assert failing is not None
    request_id = failing.json()["request_id"]
    page = system.final(request_id)
    assert (page["state"], page["code"], page["attempts"]) == ("dead", "exhausted", 3)
    system.eventually(lambda: system.receiver.states(request_id) == {"dead"})
    again = system.eventually(
        lambda: answer if (answer := system.ask(coupon, 1)) and answer.status_code == 202 else None
    )
    assert system.final(again.json()["request_id"])["state"] == "issued"


def test_a_dead_letter_lies_on_its_topic_as_spring_reads_it(system: System) -> None:
    """The dead-letter topic has the record's key, value and partition, and headers that name its origin."""
    coupon = system.make_coupon(quantity=1)
    value = b'{"userId":"seven","couponId":%d,"requestTimeMillis":0}' % coupon
    place = system.produce(coupon, value)

    def read() -> tuple[LogPosition, bytes | None, int] | None:
        return dead_letter(system, place)

    assert system.eventually(read) == (place, value, place.partition)


def test_broken_records_harm_nobody(system: System) -> None:
    """Null, broken and misplaced records become dead letters at once; those around them are issued in order."""
    coupon = system.make_coupon(quantity=10)
    before = system.count("SELECT count(*) FROM dead_letters")

    receipts = []
    for user, broken in enumerate([None, b"", b"{", b"[]", b"\xff", b'{"userId":1}', b"x" * 100_000], start=1):
        system.produce(coupon, broken)
        answer = system.ask(coupon, user)
        assert answer is not None
        receipts.append(answer.json()["request_id"])
    system.produce(coupon, b'{"userId":99,"couponId":%d,"requestTimeMillis":0}' % coupon, key=b"another")

    assert [system.final(receipt)["sequence"] for receipt in receipts] == list(range(1, 8))
    system.eventually(lambda: system.count("SELECT count(*) FROM dead_letters") == before + 8)


def test_every_decision_is_told_once(system: System) -> None:
    """Signed notices: each issued request once; a receiver that fails is tried again until it takes them."""
    coupon = system.make_coupon(quantity=20)
    system.receiver.answer = 503
    answers = system.ask_many(coupon, range(1, 21))
    receipts = [answer.json()["request_id"] for answer in answers if answer]
    assert all(system.final(receipt)["state"] == "issued" for receipt in receipts)

    system.receiver.answer = 200

    system.eventually(lambda: all(system.receiver.states(receipt) == {"issued"} for receipt in receipts))
    assert {system.receiver.told[receipt, "issued"] for receipt in receipts} == {1}
    assert system.receiver.forged == 0


def dead_letter(system: System, wanted: LogPosition) -> tuple[LogPosition, bytes | None, int] | None:
    """Origin, value and partition of a dead letter as a plain consumer reads it."""
    consumer = Consumer(
        {
            "bootstrap.servers": system.stack.kafka_bootstrap_servers,
            "group.id": f"a-reader-of-{wanted.offset}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([Topic.DEAD_LETTERS])
    try:
        while (message := consumer.poll(5)) is not None:
            found = parse_origin(tuple(message.headers() or ()))  # type: ignore[arg-type]
            if found and found.log_position == wanted:
                return found.log_position, message.value(), message.partition() or 0
    finally:
        consumer.close()
    return None
