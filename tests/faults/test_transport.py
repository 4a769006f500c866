"""Rows that run the same sale, with failing requests, over Redis and over Kafka as Celery's broker."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import task_sources
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.system import System

_USERS = 300
_ALWAYS_FAILS = "22012 9"
#: of twenty users, one fails once, one twice, one always
_FAULTS = {0: "22012 1", 1: "22012 2", 2: _ALWAYS_FAILS}
_ATTEMPTS = {0: 2, 1: 3, 2: 3}


@pytest.fixture(params=["_started", "_started_over_kafka"], ids=["Redis", "Kafka"])
def system_under_test(request: pytest.FixtureRequest) -> System:
    """The system that this module's rows run on, with Celery's messages in Redis or in Kafka."""
    system: System = request.getfixturevalue(request.param)
    return system


@row(42, "Celery's broker", "a sale with failing requests over", seconds=25)
@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "worker killed"])
def test_a_sale_ends_the_same_over_any_broker(
    scenario: Scenario, faults: FaultInjector, record_property: Callable[[str, object], None], *, killed: bool
) -> None:
    """Requests that fail once or twice are issued, those that always fail are dead, each user gets one notice."""
    coupon = scenario.system.make_coupon(_USERS)
    before, began = task_sources.tasks(scenario.system), time.monotonic()

    request_ids = sell(scenario, faults, coupon, killed=killed)
    scenario.system.wait_until_idle()

    ran = task_sources.describe(task_sources.tasks(scenario.system) - before)
    record_property("note", f"{time.monotonic() - began:.1f} s; {ran}")
    for user, request_id in request_ids.items():
        page, always_fails = scenario.system.read_status(request_id), _FAULTS.get(user % 20) == _ALWAYS_FAILS
        expected = ("dead" if always_fails else "issued", _ATTEMPTS.get(user % 20, 1))
        scenario.check((page["state"], page["attempts"]) == expected, page)
        scenario.check(scenario.system.receiver.decisions[request_id, page["state"]] == 1, page)


def sell(scenario: Scenario, faults: FaultInjector, coupon: int, *, killed: bool) -> dict[int, str]:
    """Submit a request per user, some of which fail, and optionally kill the worker during the retries.

    Return the request id of each user.
    """

    def submit(user: int) -> tuple[int, str]:
        return user, scenario.submit(coupon, user, fault=_FAULTS.get(user % 20))

    with ThreadPoolExecutor(16) as pool:
        submitted = pool.map(submit, range(1, _USERS + 1))
        if killed:
            scenario.system.eventually(lambda: scenario.system.count("SELECT count(*) FROM retries") > 10)
            faults.kill("worker")
            scenario.stack.wait_up("worker")
        return dict(submitted)
