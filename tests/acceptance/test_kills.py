"""P7: after kill -9 of each process under load, every promise still holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from tests.system import System

_USERS = 800


@pytest.mark.parametrize("victim", ["issuer", "worker", "api"])
def test_a_killed_process_loses_nothing(system: System, victim: str) -> None:
    """SIGKILL in mid-sale, during retries: after the restart every accepted request reaches a final state."""
    coupon = system.make_coupon(quantity=_USERS + 10)
    failing = [system.request_issuance(coupon, user, fault="22012 2") for user in range(_USERS + 1, _USERS + 11)]

    with under_load(system, coupon) as decided_some:
        decided_some.wait(10)
        system.stack.kill(victim)
        system.stack.wait_up(victim)

    system.wait_until_idle()
    issued = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'issued'"
    assert system.count(issued, id=coupon) == _USERS + sum(1 for answer in failing if answer)
    assert all(
        system.wait_until_final(answer.json()["request_id"])["state"] == "issued" for answer in failing if answer
    )


def test_emptying_valkey_in_mid_sale_breaks_no_promise(system: System) -> None:
    """P6: FLUSHALL under load; the gate is filled again, and exactly the quantity is issued."""
    quantity = 300
    coupon = system.make_coupon(quantity=quantity)

    with under_load(system, coupon) as decided_some:
        for _ in range(3):
            decided_some.wait(10)
            system.redis.flushall()

    system.wait_until_idle()
    issued = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'issued'"
    assert system.count(issued, id=coupon) == quantity


def test_a_failing_request_is_retried_after_valkey_was_emptied(system: System) -> None:
    """Celery's queues are lost with everything else in Redis, no process restarts: failing requests are retried."""
    coupon = system.make_coupon(quantity=2)
    before = system.request_issuance(coupon, 1, fault="22012 1")

    system.redis.flushall()
    after = system.request_issuance(coupon, 2, fault="22012 1")

    for answer in (before, after):
        assert answer is not None
        page = system.wait_until_final(answer.json()["request_id"])
        assert (page["state"], page["attempts"]) == ("issued", 2)


@contextmanager
def under_load(system: System, coupon: int) -> Iterator[Event]:
    """Send requests during the block; the event is set once more than 50 requests are issued."""
    decided_some = Event()
    load = Thread(target=system.request_many_until_answered, args=(coupon, range(1, _USERS + 1)))
    watcher = Thread(target=_set_once_decided, args=(system, coupon, decided_some))
    load.start()
    watcher.start()
    try:
        yield decided_some
    finally:
        load.join()
        watcher.join()


def _set_once_decided(system: System, coupon: int, decided_some: Event) -> None:
    query = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'issued' AND attempts = 1"
    system.eventually(lambda: system.count(query, id=coupon) > 50)
    decided_some.set()
