"""Several API processes on one port: a killed one is replaced, and the metrics are the sums over all of them."""

import re
from collections.abc import Iterable
from functools import partial

import httpx

from tests.fixtures.api_processes import TwoProcesses, is_running
from tests.system import System, client_answer


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
        system.eventually(lambda: not any(is_running(child) for child in children))
    finally:
        for child in filter(is_running, children):
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
