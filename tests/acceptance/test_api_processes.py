"""Several API processes on one port: a killed one is replaced, and the metrics are the sums over all of them."""

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
from tests.system import System, client_answer


class TwoProcesses(NamedTuple):
    """Two API processes under one parent, outside the stack's supervision."""

    system: System
    parent: psutil.Popen
    url: str

    def serving(self) -> list[psutil.Process]:
        """Return the children that serve requests."""
        return [
            child
            for child in self.parent.children()
            if _is_running(child) and "spawn_main" in " ".join(child.cmdline())
        ]

    def healthy(self) -> bool:
        """Return whether both run, and the port answers."""
        return len(self.serving()) == 2 and httpx.get(f"{self.url}/healthz").is_success


@pytest.fixture
def two_processes(system: System) -> Iterator[TwoProcesses]:
    """Two API processes on a port of their own."""
    port = ports.any_free()
    environment = {**system.stack.environment, "API_PORT": str(port), "API_PROCESSES": "2"}
    with psutil.Popen([sys.executable, "-m", "service.api"], env=environment) as parent:
        started = TwoProcesses(system, parent, f"http://127.0.0.1:{port}")
        try:
            system.eventually(started.healthy)
            yield started
        finally:
            with suppress(psutil.NoSuchProcess):
                parent.terminate()


def test_a_killed_process_is_replaced(system: System, two_processes: TwoProcesses) -> None:
    """The other still serves, no counter loses a value, and soon there are two again."""
    coupon = system.make_coupon(quantity=60)
    _submit(two_processes, coupon, range(1, 31))
    dead = two_processes.serving()[0]

    dead.kill()
    _submit(two_processes, coupon, range(31, 61))
    system.eventually(lambda: len(two_processes.serving()) == 2 and dead not in two_processes.serving())

    assert {_accepted(two_processes) for _ in range(8)} == {60}
    assert httpx.get(f"{two_processes.url}/readyz").json()["ready"]


def test_children_of_a_killed_parent_do_not_keep_the_port(system: System, two_processes: TwoProcesses) -> None:
    """They end by themselves, so that a new parent can listen."""
    children = two_processes.serving()

    two_processes.parent.kill()
    two_processes.parent.wait()

    try:
        system.eventually(lambda: not any(_is_running(child) for child in children))
    finally:
        for child in filter(_is_running, children):
            child.kill()


def _submit(two_processes: TwoProcesses, coupon: int, users: Iterable[int]) -> None:
    """Send each user's request until it has an answer below 500."""

    def answered(user: int) -> bool:
        response = httpx.post(f"{two_processes.url}/coupons/{coupon}/issuances", json={"user_id": user}, timeout=10)
        two_processes.system.history.append(client_answer(user, coupon, response))
        return response.status_code < 500

    for user in users:
        two_processes.system.eventually(partial(answered, user))


def _accepted(two_processes: TwoProcesses) -> float:
    metrics = httpx.get(f"{two_processes.url}/metrics").text
    found = re.search(r'^coupons_issue_responses_total\{code="accepted"\} ([0-9.]+)$', metrics, re.MULTILINE)
    assert found
    return float(found[1])


def _is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
