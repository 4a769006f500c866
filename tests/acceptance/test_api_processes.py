"""Several API processes on one port: one that dies is started anew, and the numbers are those of all of them."""

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import httpx
import psutil
import pytest

from stack import ports
from tests.system import System, told


class Two(NamedTuple):
    """Two API processes beneath one parent, which nobody but the test looks after."""

    system: System
    parent: psutil.Popen
    url: str

    def serving(self) -> list[psutil.Process]:
        """The processes that serve."""
        return [one for one in self.parent.children() if _lives(one) and "spawn_main" in " ".join(one.cmdline())]

    def healthy(self) -> bool:
        """Whether both are there, and one of them answers."""
        return len(self.serving()) == 2 and httpx.get(f"{self.url}/healthz").is_success


@pytest.fixture
def two(system: System) -> Iterator[Two]:
    """They listen on a port of their own."""
    port = ports.any_free()
    environment = {**system.stack.environment, "API_PORT": str(port), "API_PROCESSES": "2"}
    with psutil.Popen([sys.executable, "-m", "service.api"], env=environment) as parent:
        started = Two(system, parent, f"http://127.0.0.1:{port}")
        try:
            system.eventually(started.healthy)
            yield started
        finally:
            with suppress(psutil.NoSuchProcess):
                parent.terminate()


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

    two.parent.kill()
    two.parent.wait()

    try:
        system.eventually(lambda: not any(_lives(child) for child in children))
    finally:
        for child in filter(_lives, children):
            child.kill()


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
    found = re.search(r'^coupons_issue_responses_total\{code="accepted"\} ([0-9.]+)$', numbers, re.MULTILINE)
    assert found
    return float(found[1])


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
