"""Rows about deployment: a rolling restart, processes that start before their servers, and a killed Flower."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from service.log_events import LogEvent
from stack.startup import SERVERS
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario

_PROCESSES = ("api", "issuer", "worker", "beat")


@row(38, "deployment", "the migration and a restart of each process in turn, under load", seconds=45)
def test_rolling_restart(scenario: Scenario, faults: FaultInjector) -> None:
    """Users repeat requests while the API is down; they notice nothing of the other restarts."""
    with scenario.under_load():
        migrate = [sys.executable, "-m", "service.cli", "migrate"]
        subprocess.run(migrate, env=scenario.stack.environment, check=True, timeout=60)
        for name in _PROCESSES:
            since = time.monotonic()
            faults.stop(name)
            faults.start(name)
            scenario.recovers(since)


@row(39, "deployment", "processes start first, then Valkey, PostgreSQL and Kafka", seconds=60, within=180)
def test_processes_start_first(scenario: Scenario, faults: FaultInjector) -> None:
    """They log what they wait for, and begin by themselves."""
    with scenario.under_load(), ThreadPoolExecutor(len(_PROCESSES)) as pool:
        since = time.monotonic()
        for name in (*_PROCESSES, *SERVERS):
            faults.stop(name)
        starting = [pool.submit(faults.start, name) for name in _PROCESSES]
        scenario.system.eventually(
            lambda: all(LogEvent.START_WAITING in scenario.process_log(name) for name in ("api", "issuer"))
        )
        faults.confirm(LogEvent.START_WAITING in scenario.process_log("issuer"), "they wait")
        for name in reversed(SERVERS):
            faults.start(name)
        for start in starting:
            start.result()
        scenario.recovers(since, within_seconds=90)


@row(40, "Flower", "kill -9", seconds=10)
def test_flower_is_killed(scenario: Scenario, faults: FaultInjector) -> None:
    """The view is gone, and nothing else is affected."""
    with scenario.under_load():
        faults.kill("flower")
        scenario.recovers(since=time.monotonic())
    scenario.stack.wait_up("flower")
