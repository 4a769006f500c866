"""The broker is exchangeable: the same sale, with requests that fail, over Redis and over Kafka alone.

Each ends in the proof. `pytest -s` shows how long it took and how many tasks ran by whose hint.
"""

import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.system import System
from workers.names import Hint, Task

_USERS = 300
#: of twenty users one fails once, one twice, one for ever
_FAULTS = {0: "22012 1", 1: "22012 2", 2: "22012 9"}
_RETRY_TOPIC = "coupon.celery.retry"
_RUNS = re.compile(r"task runs .* hint=(\w+) task=([\w.]+)")


@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "worker-killed"])
@pytest.mark.parametrize("over", ["system", "system_over_kafka"], ids=["redis", "kafka"])
def test_a_sale_ends_the_same_over_any_broker(over: str, killed: bool, request: pytest.FixtureRequest) -> None:
    """Requests that fail once or twice are issued, those that always fail are dead, each user is told once."""
    system: System = request.getfixturevalue(over)
    coupon = system.make_coupon(quantity=_USERS)
    before, began = tasks(system), time.monotonic()

    receipts = sale(system, coupon, killed=killed)
    system.settle()

    figures = f"{time.monotonic() - began:.1f} s; {told(tasks(system) - before)}"
    print(f"\n{request.node.callspec.id}: {figures}")  # noqa: T201  # for eyes, with -s
    for user, receipt in receipts.items():
        page, forever = system.standing(receipt), _FAULTS.get(user % 20) == "22012 9"
        assert page["state"] == ("dead" if forever else "issued"), page
        assert page["attempts"] == {0: 2, 1: 3, 2: 3}.get(user % 20, 1), page
        assert system.receiver.told[receipt, page["state"]] == 1, page


def test_a_failing_request_is_retried_after_celerys_topics_were_emptied(system_over_kafka: System) -> None:
    """P6 over Kafka: the hint is gone, the sweep sends it again, and the log says so."""
    system = system_over_kafka
    coupon = system.make_coupon(quantity=1)
    system.stack.stop("worker")
    emptied(system, _RETRY_TOPIC)
    failing = system.ask(coupon, 1, fault="22012 1")
    system.eventually(lambda: emptied(system, _RETRY_TOPIC))
    before = tasks(system)

    system.stack.start("worker")

    assert failing is not None
    assert system.final(failing.json()["request_id"])["attempts"] == 2
    ran = tasks(system) - before
    assert (ran[Hint.BROKER, Task.RETRY], ran[Hint.SWEEP, Task.RETRY]) == (0, 1)


def test_a_worker_whose_children_were_killed_works_on(system_over_kafka: System) -> None:
    """Idle children killed with SIGKILL: those that follow them are given work, the worker itself lives on."""
    system = system_over_kafka
    coupon = system.make_coupon(quantity=1)
    worker = psutil.Process(system.stack.pid("worker"))
    for child in worker.children():
        child.kill()

    failing = system.ask(coupon, 1, fault="22012 1")

    assert failing is not None
    assert system.final(failing.json()["request_id"])["attempts"] == 2
    assert system.stack.pid("worker") == worker.pid


def test_everything_goes_on_by_itself_after_kafka_was_away(system_over_kafka: System) -> None:
    """No process is restarted, and a failing request is retried by the broker's own hint again."""
    system = system_over_kafka
    processes = [system.stack.pid(name) for name in ("worker", "beat", "issuer")]
    system.stack.restart("kafka")
    system.begin()
    before = tasks(system)

    def retried() -> bool:
        failing = system.ask(system.make_coupon(quantity=1), 1, fault="22012 1")
        assert failing is not None
        assert system.final(failing.json()["request_id"])["attempts"] == 2
        return (tasks(system) - before)[Hint.BROKER, Task.RETRY] > 0

    system.eventually(retried)
    assert [system.stack.pid(name) for name in ("worker", "beat", "issuer")] == processes


def sale(system: System, coupon: int, *, killed: bool) -> dict[int, str]:
    """Many users press, some of whose requests fail; the worker may be killed while they are retried. The receipts."""

    def press(user: int) -> tuple[int, str]:
        answer = system.ask(coupon, user, fault=_FAULTS.get(user % 20))
        assert answer is not None
        assert answer.status_code == 202, answer.text
        return user, answer.json()["request_id"]

    with ThreadPoolExecutor(16) as pool:
        pressed = pool.map(press, range(1, _USERS + 1))
        if killed:
            system.eventually(lambda: system.count("SELECT count(*) FROM retries") > 10)
            system.stack.kill("worker")
            system.stack.wait_up("worker")
        return dict(pressed)


def tasks(system: System) -> Counter[tuple[str, str]]:
    """How many tasks ran by whose hint, as the worker's log has it."""
    return Counter(_RUNS.findall((system.stack.directory / "log" / "worker.log").read_text()))


def told(ran: Counter[tuple[str, str]]) -> str:
    """The tasks that follow hints, for eyes."""
    hinted = (Task.RETRY, Task.DEAD_LETTER, Task.NOTIFY, Task.TELL_GATE)
    return ", ".join(f"{task} {ran[Hint.BROKER, task]} broker {ran[Hint.SWEEP, task]} sweep" for task in hinted)


def emptied(system: System, topic: str) -> bool:
    """Whether a topic had records, all of which are deleted now."""
    servers: dict[str, str | int | float | bool] = {"bootstrap.servers": system.stack.kafka_bootstrap_servers}
    consumer = Consumer({**servers, "group.id": "nobody"})
    places = [TopicPartition(topic, partition) for partition in range(system.settings.topic_partitions)]
    try:
        bounds = [consumer.get_watermark_offsets(place, timeout=5) for place in places]
    finally:
        consumer.close()
    ends = [TopicPartition(place.topic, place.partition, last) for place, (_, last) in zip(places, bounds, strict=True)]
    admin = AdminClient(servers)
    for deleting in admin.delete_records(ends).values():
        deleting.result(10)
    return any(first < last for first, last in bounds)
