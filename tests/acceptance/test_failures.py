"""Requests that fail: retried, dead, or poison; and the notices of all decisions."""

import httpx
from confluent_kafka import Consumer

from service.domain.request import LogPosition
from service.stream.dead_letter_records import parse_origin
from service.stream.topics import Topic
from tests.system import System


def test_a_failed_request_keeps_its_place_and_is_issued_by_a_retry(system: System) -> None:
    """A failed request keeps its seat as held; Celery issues it a second later, in its second attempt."""
    coupon = system.make_coupon(quantity=3)

    failing = system.request_issuance(coupon, 1, fault="22012 1")
    others = [system.request_issuance(coupon, user) for user in (2, 3)]

    assert failing is not None
    page = system.wait_until_final(failing.json()["request_id"])
    assert (page["state"], page["attempts"], page["sequence"]) == ("issued", 2, 3)
    assert [system.wait_until_final(other.json()["request_id"])["sequence"] for other in others if other] == [1, 2]


def test_flower_shows_the_workers_and_the_retries(system: System) -> None:
    """Flower lists the worker and shows a retried task."""
    coupon = system.make_coupon(quantity=1)
    failing = system.request_issuance(coupon, 1, fault="22012 2")
    assert failing is not None
    assert system.wait_until_final(failing.json()["request_id"])["attempts"] == 3

    flower = httpx.Client(base_url=system.stack.flower_url, auth=system.stack.flower_login)

    def retried() -> bool:
        tasks = flower.get("/api/tasks", params={"taskname": "retry.issue"}).json()
        return any(task["retries"] for task in tasks.values())

    system.eventually(retried)
    assert flower.get("/api/workers", params={"refresh": "true"}).json()
    flower.close()


def test_a_request_that_never_succeeds_is_dead_and_its_seat_is_free(system: System) -> None:
    """After three attempts: a dead letter, a notice, and the same user can send a new request."""
    coupon = system.make_coupon(quantity=1)

    failing = system.request_issuance(coupon, 1, fault="22012 9")

    assert failing is not None
    request_id = failing.json()["request_id"]
    page = system.wait_until_final(request_id)
    assert (page["state"], page["code"], page["attempts"]) == ("dead", "exhausted", 3)
    system.eventually(lambda: set(system.receiver.states(request_id)) == {"dead"})
    repeat = system.eventually(
        lambda: answer if (answer := system.request_issuance(coupon, 1)) and answer.status_code == 202 else None
    )
    assert system.wait_until_final(repeat.json()["request_id"])["state"] == "issued"


def test_a_dead_letter_has_the_form_that_spring_kafka_reads(system: System) -> None:
    """The record on the dead-letter topic has the original value and partition, and headers with its origin."""
    coupon = system.make_coupon(quantity=1)
    value = b'{"userId":"seven","couponId":%d,"requestTimeMillis":0}' % coupon
    position = system.produce(coupon, value)

    def read() -> tuple[LogPosition, bytes | None, int] | None:
        return read_dead_letter(system, position)

    assert system.eventually(read) == (position, value, position.partition)


def test_poison_records_do_not_affect_their_neighbours(system: System) -> None:
    """Null, unreadable and misplaced records become dead letters at once; requests around them are issued in order."""
    coupon = system.make_coupon(quantity=10)
    before = system.count("SELECT count(*) FROM dead_letters")

    request_ids = []
    for user, value in enumerate([None, b"", b"{", b"[]", b"\xff", b'{"userId":1}', b"x" * 100_000], start=1):
        system.produce(coupon, value)
        answer = system.request_issuance(coupon, user)
        assert answer is not None
        request_ids.append(answer.json()["request_id"])
    system.produce(coupon, b'{"userId":99,"couponId":%d,"requestTimeMillis":0}' % coupon, key=b"another")

    assert [system.wait_until_final(request_id)["sequence"] for request_id in request_ids] == list(range(1, 8))
    system.eventually(lambda: system.count("SELECT count(*) FROM dead_letters") == before + 8)


def test_every_decision_has_one_notice(system: System) -> None:
    """Signed notices, one per issued request; a failing receiver gets them again until it accepts them."""
    coupon = system.make_coupon(quantity=20)
    system.receiver.response_status = 503
    answers = system.request_many(coupon, range(1, 21))
    request_ids = [answer.json()["request_id"] for answer in answers if answer]
    assert all(system.wait_until_final(request_id)["state"] == "issued" for request_id in request_ids)

    system.receiver.response_status = 200

    system.eventually(lambda: all(set(system.receiver.states(request_id)) == {"issued"} for request_id in request_ids))
    assert {system.receiver.decisions[request_id, "issued"] for request_id in request_ids} == {1}
    assert system.receiver.forged == 0


def read_dead_letter(system: System, wanted: LogPosition) -> tuple[LogPosition, bytes | None, int] | None:
    """Read a dead letter with a plain consumer; return its origin, value and partition, or None."""
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
