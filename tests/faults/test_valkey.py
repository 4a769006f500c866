"""Rows in which Valkey is killed, frozen, loses data or refuses writes: it is a cache; no promise depends on it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.gate.keys import seats_key
from tests.faults.fault_injection import FaultInjector
from tests.faults.load import LoadGenerator
from tests.faults.rows import row
from tests.faults.scenario import Scenario

#: a failing request is retried within this time, even if its message was lost
_RETRIED_SECONDS = 30.0


@row(26, "Valkey", "kill -9 and all its data deleted, in mid-sale", seconds=20)
def test_emptied(scenario: Scenario, faults: FaultInjector) -> None:
    """The gate is filled again, and the sweep finds the rows whose messages were in Celery's queues."""
    coupon = scenario.system.make_coupon(10)
    with scenario.under_load():
        scenario.submit(coupon, 1, fault="22012 2")
        faults.crash("valkey")
        shutil.rmtree(scenario.stack.directory / "valkey" / "appendonlydir")
        faults.start("valkey")
        faults.confirm(not scenario.system.redis.exists(seats_key(coupon)), "its data is gone")
        check_retries(scenario, faults, coupon)


@row(28, "Valkey", "kill -9 and the end of its append-only file lost", seconds=20)
def test_recent_data_lost(scenario: Scenario, faults: FaultInjector) -> None:
    """Users who had a seat may have none: they are admitted twice and decided once."""
    with scenario.under_load(per_second=120, at_once=32):
        before = all_seats(scenario.system.redis)
        faults.crash("valkey")
        (append_only_file,) = (scenario.stack.directory / "valkey" / "appendonlydir").glob("*.incr.aof")
        with append_only_file.open("r+b") as file:
            file.truncate(append_only_file.stat().st_size * 9 // 10)
        faults.start("valkey")
        faults.confirm(before - all_seats(scenario.system.redis), "seats were lost")
        scenario.recovers(since=time.monotonic())


@row(27, "Valkey", "SIGSTOP", seconds=20)
def test_frozen(scenario: Scenario, faults: FaultInjector) -> None:
    """Each call times out after a second at most: the database answers, and readiness reports a degraded service."""
    with scenario.under_load() as load:
        with faults.frozen("valkey"):
            scenario.becomes_degraded("redis")
            check_still_accepts(scenario, load)
        scenario.recovers(since=time.monotonic())


@row(27, "Valkey", "stopped", seconds=20)
def test_unavailable(scenario: Scenario, faults: FaultInjector) -> None:
    """The database answers; requests that fail meanwhile are retried once Celery has its broker back."""
    coupon = scenario.system.make_coupon(10)
    with scenario.under_load() as load:
        with faults.unavailable("valkey"):
            scenario.becomes_degraded("redis")
            check_still_accepts(scenario, load)
            scenario.submit(coupon, 1, fault="22012 1")
        check_retries(scenario, faults, coupon)


@row(29, "Valkey", "writes refused (out of memory, read-only) and its scripts flushed", seconds=20)
@pytest.mark.parametrize("how", ["memory", "replica"])
def test_refuses_writes(scenario: Scenario, faults: FaultInjector, how: str) -> None:
    """Errors are handled like an unavailable server, and the service recovers when they end."""
    with scenario.under_load() as load:
        missing = count_missing_scripts(scenario.system.redis)
        scenario.system.redis.script_flush()
        check_still_accepts(scenario, load)
        scenario.check(count_missing_scripts(scenario.system.redis) > missing, "its scripts had to be loaded again")
        faults.allow_restart("valkey")
        with writes_refused(scenario.system.redis, how):
            with pytest.raises(RedisError):
                scenario.system.redis.set("a-key", "a value")
            faults.confirm(occurred=True, what="it refuses to write")
            scenario.becomes_degraded("redis")
            check_still_accepts(scenario, load)
        scenario.recovers(since=time.monotonic())


def count_missing_scripts(redis: Redis) -> int:
    """Return how often the server was asked for a script that it did not have."""
    found: dict[str, dict[str, int]] = redis.info("errorstats")
    return found.get("errorstat_NOSCRIPT", {"count": 0})["count"]


@row(33, "Celery", "its broker restarts while it is idle", seconds=20)
def test_restarted_while_idle(scenario: Scenario, faults: FaultInjector) -> None:
    """The worker consumes again within half a minute."""
    faults.kill("valkey")
    scenario.stack.wait_up("valkey")
    check_retries(scenario, faults, scenario.system.make_coupon(10))


def check_retries(scenario: Scenario, faults: FaultInjector, coupon: int) -> None:
    """Check that a request that fails once, and all that failed before, are retried within the limit."""
    since = time.monotonic()
    page = scenario.system.wait_until_final(scenario.submit(coupon, 2, fault="22012 1"))
    scenario.check_in_time(since, _RETRIED_SECONDS, page["state"] == "issued", "retried")
    faults.confirm(page["attempts"] == 2, "it failed once")
    retrying = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'retrying'"
    scenario.system.eventually(lambda: not scenario.system.count(retrying, id=coupon))
    scenario.check_in_time(since, _RETRIED_SECONDS, True, "everything was retried")


def check_still_accepts(scenario: Scenario, load: LoadGenerator) -> None:
    """Check that requests are still accepted."""
    before = load.accepted
    scenario.system.eventually(lambda: load.accepted > before + 30)
    scenario.check(load.accepted > before, "requests are accepted in the meantime")


def all_seats(redis: "Redis") -> set[tuple[object, object]]:
    """Return the seats at the gate as pairs of coupon key and user."""
    return {(key, user) for key in redis.scan_iter("gate:*:seats") for user in redis.hkeys(key)}


@contextmanager
def writes_refused(redis: "Redis", how: str) -> Iterator[None]:
    """Make the server answer every write with an error during the block."""
    if how == "memory":
        redis.config_set("maxmemory", 1)
    else:
        redis.replicaof("127.0.0.1", 9)
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)
        redis.replicaof("NO", "ONE")
