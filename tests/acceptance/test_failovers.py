"""Failovers in the middle of a sale, behind one address and by Sentinel: all goes on within 30 s without a restart."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import httpx
import pytest

from tests.fixtures.failover import FailoverSystem, failover_system
from tests.fixtures.sentinel import SentinelSystem, sentinel_system
from tests.system import System
from tests.waiting import eventually

_RECOVERED_SECONDS = 30.0
_USERS = 200
_QUANTITY = 100
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def failing_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailoverSystem]:
    """The whole system with PostgreSQL and Valkey behind addresses that fail over."""
    with failover_system(tmp_path_factory.mktemp("failover")) as system:
        yield system


def test_a_sale_continues_after_postgresql_failed_over(failing_over: FailoverSystem) -> None:
    """P7: the pools of API, issuer and worker leave the old primary, which is read-only and keeps its connections."""
    old = _sell_with_failover(failing_over.system, failing_over.postgres.fail_over)
    failing_over.postgres.remove(old)


def test_a_sale_continues_after_valkey_failed_over(failing_over: FailoverSystem) -> None:
    """P6: the gate's clients and Celery leave the old primary, which answers every write with READONLY."""
    old = _sell_with_failover(failing_over.system, failing_over.valkey.fail_over)
    failing_over.valkey.remove(old)


@pytest.fixture(scope="module")
def at_sentinel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SentinelSystem]:
    """The whole system with the gate and Celery's broker at the primary that Sentinel names."""
    with sentinel_system(tmp_path_factory.mktemp("sentinel")) as system:
        yield system


def test_a_sale_continues_after_sentinel_replaced_a_killed_primary(at_sentinel: SentinelSystem) -> None:
    """P6: gate and Celery find the new primary. The old one comes back as a replica, and nobody writes to it."""
    _sell_with_failover(at_sentinel.system, at_sentinel.servers.crash_primary)


def test_a_sale_continues_after_sentinel_failed_over(at_sentinel: SentinelSystem) -> None:
    """P6: the old primary lives on. The Sentinel that the clients have asked first so far does not."""
    with at_sentinel.servers.without_first_sentinel():
        _sell_with_failover(at_sentinel.system, at_sentinel.servers.fail_over)


def test_flower_counts_what_waits_at_the_primary(at_sentinel: SentinelSystem) -> None:
    """Its own client would read database 0."""
    stack = at_sentinel.system.stack
    stack.stop("worker")  # now the sweeps wait
    try:
        with httpx.Client(base_url=stack.flower_url, auth=stack.flower_login) as flower:
            eventually(lambda: any(one["messages"] for one in flower.get("/api/queues/length").json()["active_queues"]))
    finally:
        stack.start("worker")


def _sell_with_failover(system: System, fail_over: Callable[[], Result]) -> Result:
    """Fail over while half of the users ask, and prove the promises at the end."""
    system.wait_until_ready()
    coupon, asked_before = system.make_coupon(_QUANTITY), len(system.history)
    with ThreadPoolExecutor(1) as background:
        sale = background.submit(system.request_many_until_answered, coupon, range(1, _USERS + 1))
        system.eventually(lambda: len(system.history) > asked_before + _USERS // 4)
        result = fail_over()
        began = time.monotonic()
        eventually(lambda: _works(system), within_seconds=_RECOVERED_SECONDS)
        retried = system.request_until_answered(system.make_coupon(1), 1, fault="22012 1").json()["request_id"]
        assert system.wait_until_final(retried)["attempts"] == 2
        assert time.monotonic() - began < _RECOVERED_SECONDS
        sale.result()
    system.wait_until_idle()
    assert system.count("SELECT issued FROM coupons WHERE id = :id", id=coupon) == _QUANTITY
    system.assert_promises()
    return result


def _works(system: System) -> bool:
    """Return whether a coupon can be made, and nothing reports a fault or a degraded part."""
    created = system.http.post("/coupons", json={"name": "another coupon", "quantity": 1})
    api, issuer = system.http.get("/readyz"), httpx.get(f"{system.stack.issuer_url}/readyz", auth=system.credentials)
    return (created.status_code, issuer.status_code, api.status_code, api.json()["degraded"]) == (201, 200, 200, [])
