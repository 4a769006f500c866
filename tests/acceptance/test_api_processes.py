"""Several API processes on one port: one that dies is started anew, and the numbers are those of all of them."""

import os
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import httpx
import psutil
import pytest

from stack import ports
from stack.parts import processes
from tests.faults.guests import guest
from tests.system import System, told


class Two(NamedTuple):
    """Two API processes beneath one parent, a part of the stack."""

    system: System
    part: str
    url: str

    def serving(self) -> list[psutil.Process]:
        """The processes that serve."""
        beneath = psutil.Process(self.system.stack.pid(self.part)).children(recursive=True)
        return [one for one in beneath if _lives(one) and "spawn_main" in " ".join(one.cmdline())]


@pytest.fixture
def two(system: System) -> Iterator[Two]:
    """They listen on a port of their own."""
    port = ports.any_free()
    environment = {**system.stack.environment, "API_PORT": str(port), "API_PROCESSES": "2"}
    started = Two(system, f"api-{port}", f"http://127.0.0.1:{port}")
    with guest(system.stack, replace(processes.api(environment), name=started.part)):
        system.eventually(lambda: len(started.serving()) == 2)
        yield started


def test_a_killed_process_is_started_anew(system: System, two: Two) -> None:
    """The other goes on serving, nothing that either counted is lost, and soon there are two again."""
    coupon = system.make_coupon(quantity=60)
    _press(two, coupon, range(1, 31))
    dead = two.serving()[0]

    dead.kill()
    _press(two, coupon, range(31, 61))
    system.eventually(lambda: len(two.serving()) == 2 and dead not in two.serving())

    assert {_accepted(two) for _ in range(8)} == {60}
    assert httpx.get(f"{two.url}/readyz").json()["ready"]


def test_children_of_a_killed_parent_do_not_keep_the_port(system: System, two: Two) -> None:
    """They end by themselves, so that the parent's successor can listen."""
    children = two.serving()

    os.kill(system.stack.pid(two.part), signal.SIGKILL)

    system.eventually(lambda: not any(_lives(child) for child in children))


def _press(two: Two, coupon: int, users: Iterable[int]) -> None:
    """Each user asks until there is an answer."""

    def answer(user: int) -> bool:
        heard = httpx.post(f"{two.url}/coupons/{coupon}/issuances", json={"user_id": user}, timeout=10)
        two.system.history.append(told(user, coupon, heard))
        return heard.status_code < 500

    for user in users:
        two.system.eventually(partial(answer, user))


def _accepted(two: Two) -> float:
    numbers = httpx.get(f"{two.url}/metrics").text
    found = re.search(r'^coupons_answers_total\{code="accepted"\} ([0-9.]+)$', numbers, re.MULTILINE)
    assert found
    return float(found[1])


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
