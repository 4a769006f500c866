"""Rows in which PostgreSQL crashes, blocks or runs out of connections; test_disks and test_links have more."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario

_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'issuer' LIMIT 1"
#: each process has several pools, with names of their own
_TERMINATE_OTHERS = (
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
    " WHERE application_name SIMILAR TO '(api|issuer|worker)%'"
)
_MAX_CONNECTIONS = 300
#: longer than the lock timeout of three seconds
_LOCKED_SECONDS = 7.0


@row(20, "PostgreSQL", "kill -9 of one backend", seconds=15)
def test_a_backend_is_killed(scenario: Scenario, faults: FaultInjector) -> None:
    """The server closes every connection and recovers; the pools reconnect, and committed data is there."""
    with scenario.under_load():
        backend = scenario.system.count(_BACKENDS)
        os.kill(backend, signal.SIGKILL)
        scenario.system.eventually(lambda: "was terminated by signal 9" in scenario.process_log("postgres"))
        killed = f"PID {backend}) was terminated by signal 9" in scenario.process_log("postgres")
        faults.confirm(killed, "a backend was killed")
        scenario.recovers(since=time.monotonic())


@row(21, "PostgreSQL", "kill -9 of the whole server, then an immediate shutdown", seconds=30)
def test_the_server_crashes(scenario: Scenario, faults: FaultInjector) -> None:
    """Without a checkpoint or a clean disconnect: committed data is there, the rest is decided again."""
    with scenario.under_load():
        since = time.monotonic()
        with faults.unavailable("postgres"):
            scenario.becomes_unready("issuer")
            scenario.becomes_degraded("postgresql")
        scenario.recovers(since)
        since = time.monotonic()
        faults.wait_ended(faults.terminate("postgres", signal.SIGQUIT))
        scenario.stack.wait_up("postgres")
        scenario.recovers(since)
        faults.confirm("not properly shut down" in scenario.process_log("postgres"), "it ran crash recovery")


@row(21, "PostgreSQL", "SIGSTOP", seconds=30)
def test_frozen(scenario: Scenario, faults: FaultInjector) -> None:
    """No connection reports an error: probes notice all the same, the gate accepts, and all resume after the thaw."""
    with scenario.under_load() as load:
        with faults.frozen("postgres"):
            scenario.becomes_unready("issuer")
            scenario.becomes_degraded("postgresql")
            before = load.accepted
            scenario.system.eventually(lambda: load.accepted > before + 20)
        scenario.recovers(since=time.monotonic())


@row(23, "PostgreSQL", "a coupon's row is locked for longer than the lock timeout", seconds=25)
def test_a_row_is_locked(scenario: Scenario, faults: FaultInjector) -> None:
    """The partition waits, reports the reason, and counts no attempt."""
    coupon = scenario.system.make_coupon(10)
    with scenario.under_load():
        with scenario.coupon_locked(coupon):
            request_id = scenario.submit(coupon, 1)
            scenario.becomes_unready("issuer")
            faults.confirm("LockNotAvailable" in scenario.process_log("issuer"), "the issuer ran into the lock")
            time.sleep(_LOCKED_SECONDS)  # the length of the lock is the fault: several attempts to lock
        scenario.recovers(since=time.monotonic())
    page = scenario.system.wait_until_final(request_id)
    scenario.check((page["state"], page["attempts"]) == ("issued", 1), page)


@row(24, "PostgreSQL", "every connection is taken", seconds=25)
def test_no_connection_is_left(scenario: Scenario, faults: FaultInjector) -> None:
    """Another client takes every connection, the pools' included: reported, bounded, recovered without a restart."""
    with scenario.under_load():
        with all_connections_taken(scenario.stack.database_url) as taken:
            faults.confirm(100 < len(taken) < _MAX_CONNECTIONS, f"{len(taken)} connections were taken")
            scenario.becomes_unready("issuer")
            scenario.becomes_degraded("postgresql")
        scenario.recovers(since=time.monotonic())


@contextmanager
def all_connections_taken(url: str) -> Iterator[list[psycopg.Connection]]:
    """Hold every connection of the server during the block, including those that the processes had."""
    taken: list[psycopg.Connection] = []

    def connect_until_refused() -> None:
        with suppress(psycopg.OperationalError):
            while len(taken) < _MAX_CONNECTIONS:
                taken.append(psycopg.connect(url, autocommit=True))

    try:
        connect_until_refused()
        while taken[0].execute(_TERMINATE_OTHERS).fetchall():
            connect_until_refused()
        yield taken
    finally:
        for connection in taken:
            connection.close()
