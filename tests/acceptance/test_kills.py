"""P7: kill -9 of each process under load, and the proof holds."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest

from tests.system import System

_USERS = 800


@pytest.mark.parametrize("victim", ["issuer", "worker", "api"])
def test_a_killed_process_loses_nothing(system: System, victim: str) -> None:
    """Killed with SIGKILL in mid-sale, with requests being retried: after its restart all receipts are final."""
    coupon = system.make_coupon(quantity=_USERS + 10)
    failing = [system.ask(coupon, user, fault="22012 2") for user in range(_USERS + 1, _USERS + 11)]

    with under_load(system, coupon) as decided_some:
        decided_some.wait(10)
        system.stack.kill(victim)
        system.stack.wait_up(victim)

    system.settle()
    issued = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'issued'"
    assert system.count(issued, id=coupon) == _USERS + sum(1 for answer in failing if answer)
    assert all(system.final(answer.json()["request_id"])["state"] == "issued" for answer in failing if answer)


def test_emptying_valkey_in_mid_sale_breaks_no_promise(system: System) -> None:
    """P6: FLUSHALL while users press; the gate fills itself again and never admits what the issuer cannot refuse."""
    quantity = 300
    coupon = system.make_coupon(quantity=quantity)

    with under_load(system, coupon) as decided_some:
        for _ in range(3):
            decided_some.wait(10)
            system.redis.flushall()

    system.settle()
    issued = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'issued'"
    assert system.count(issued, id=coupon) == quantity


def test_a_failing_request_is_retried_after_valkey_was_emptied(system: System) -> None:
    """Celery's queues gone with everything else in Redis, nothing restarted: a failing request is still retried."""
    coupon = system.make_coupon(quantity=2)
    before = system.ask(coupon, 1, fault="22012 1")

    system.redis.flushall()
    after = system.ask(coupon, 2, fault="22012 1")

    for answer in (before, after):
        assert answer is not None
        page = system.final(answer.json()["request_id"])
        assert (page["state"], page["attempts"]) == ("issued", 2)


@contextmanager
def under_load(system: System, coupon: int) -> Iterator[Event]:
    """Users press all the while; the event is set once some of them have been decided."""
    decided_some = Event()
    load = Thread(target=system.press_many, args=(coupon, range(1, _USERS + 1)))
    watch = Thread(target=_watch, args=(system, coupon, decided_some))
    load.start()
    watch.start()
    try:
        yield decided_some
    finally:
        load.join()
        watch.join()


def _watch(system: System, coupon: int, decided_some: Event) -> None:
    query = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'issued' AND attempts = 1"
    system.eventually(lambda: system.count(query, id=coupon) > 50)
    decided_some.set()
