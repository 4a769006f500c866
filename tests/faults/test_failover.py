"""Rows in which PostgreSQL or Valkey fails over to a replica behind the same address, in the middle of a sale."""

import time
from collections.abc import Iterator

import pytest

from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.faults.test_valkey import check_retries
from tests.fixtures.failover import FailoverSystem, Pair, failover_system
from tests.system import System


@pytest.fixture(scope="module")
def failing_over(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FailoverSystem]:
    """The whole system with PostgreSQL and Valkey behind addresses that fail over."""
    with failover_system(tmp_path_factory.mktemp("failover")) as system:
        yield system


@pytest.fixture
def system_under_test(failing_over: FailoverSystem) -> System:
    """The system that this module's rows run on."""
    return failing_over.system


@row(
    45,
    "PostgreSQL",
    "a replica is promoted, and the old primary keeps its connections, read-only",
    seconds=25,
    within=240,
)
def test_postgresql_fails_over(scenario: Scenario, faults: FaultInjector, failing_over: FailoverSystem) -> None:
    """API, issuer and worker leave the old primary by themselves, also with connections that only read."""
    check_fail_over(scenario, faults, failing_over.postgres)


@row(45, "PostgreSQL", "the primary is killed and a replica promoted", seconds=25, within=240)
def test_postgresql_is_replaced(scenario: Scenario, faults: FaultInjector, failing_over: FailoverSystem) -> None:
    """With synchronous replication every commit is there; the processes connect to the new primary."""
    check_crash(scenario, faults, failing_over.postgres)


@row(45, "PostgreSQL", "read-only for a while", seconds=25, within=240)
def test_postgresql_is_read_only(scenario: Scenario, faults: FaultInjector, failing_over: FailoverSystem) -> None:
    """The issuer is unready and the API degraded; the gate accepts, and all is issued afterwards."""
    with scenario.under_load() as load:
        with failing_over.postgres.read_only():
            scenario.becomes_unready("issuer")
            scenario.becomes_degraded("postgresql")
            before = load.accepted
            scenario.system.eventually(lambda: load.accepted > before + 20)
            faults.confirm("read-only" in scenario.process_log("issuer"), "the issuer could not write")
        check_recovers(scenario, faults)


@row(
    46,
    "Valkey",
    "a replica is promoted, and the old primary keeps its connections as a replica",
    seconds=25,
    within=240,
)
def test_valkey_fails_over(scenario: Scenario, faults: FaultInjector, failing_over: FailoverSystem) -> None:
    """The gate of every process and Celery leave the demoted server, which answers every write with READONLY."""
    faults.may_restart.add("worker")
    check_fail_over(scenario, faults, failing_over.valkey)


@row(46, "Valkey", "the primary is killed and a replica promoted", seconds=25, within=240)
def test_valkey_is_replaced(scenario: Scenario, faults: FaultInjector, failing_over: FailoverSystem) -> None:
    """The processes connect to the new primary, which may lack the last writes."""
    faults.may_restart.add("worker")
    check_crash(scenario, faults, failing_over.valkey)


def check_fail_over(scenario: Scenario, faults: FaultInjector, pair: Pair) -> None:
    """Fail over under load; check that all work resumes in time while the old primary runs."""
    with scenario.under_load():
        before = pair.primary
        old = pair.fail_over()
        faults.confirm(old == before != pair.primary, "another server is the primary")
        check_recovers(scenario, faults)
    pair.remove(old)


def check_crash(scenario: Scenario, faults: FaultInjector, pair: Pair) -> None:
    """Kill the primary under load; check that all work resumes in time."""
    with scenario.under_load():
        before = pair.primary
        faults.confirm(pair.crash() == before != pair.primary, "another server is the primary")
        check_recovers(scenario, faults)


def check_recovers(scenario: Scenario, faults: FaultInjector) -> None:
    """Check that requests are issued, a failed one is retried by a worker, and no part is degraded."""
    since = time.monotonic()
    scenario.recovers(since)
    check_retries(scenario, faults, scenario.system.make_coupon(10))
    degraded = scenario.system.eventually(lambda: scenario.system.http.get("/readyz").json()["degraded"] == [])
    scenario.check_in_time(since, 30.0, degraded, "nothing is degraded")
