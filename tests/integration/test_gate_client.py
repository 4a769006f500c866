"""The Redis clients leave a server that answers and cannot do the work."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from celery import Celery
from redis import Redis

from service.config import Settings
from service.domain.errors import Unavailable
from service.gate.async_gate import AsyncGate
from service.gate.client import build_async_client, build_client
from service.gate.gate_admin import GateAdmin
from service.log_events import LogEvent
from service.resources import Resources
from tests.waiting import eventually
from workers.sweep import sweep

_NAME = "leaves"


@contextmanager
def _demoted(redis: "Redis") -> Iterator[None]:
    redis.replicaof("127.0.0.1", 9)
    try:
        yield
    finally:
        redis.replicaof("NO", "ONE")


@contextmanager
def _too_few_replicas(redis: "Redis") -> Iterator[None]:
    redis.config_set("min-replicas-to-write", 1)
    try:
        yield
    finally:
        redis.config_set("min-replicas-to-write", 0)


@contextmanager
def _forbidden(redis: "Redis") -> Iterator[None]:
    redis.execute_command("ACL", "SETUSER", "default", "-@scripting")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        redis.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]


_REFUSALS = pytest.mark.parametrize(
    ("refusing", "reason"),
    [
        (_demoted, "read only replica"),
        (_too_few_replicas, "NOREPLICAS"),
        (_forbidden, "Redis refuses a right that the service needs"),
    ],
    ids=["READONLY", "NOREPLICAS", "NOPERM"],
)


def _connections(redis: "Redis") -> int:
    return sum(client["name"] == _NAME for client in redis.client_list())


@_REFUSALS
def test_a_refused_write_ends_the_connections_of_a_blocking_client(
    settings: Settings, redis: Redis, refusing: object, reason: str
) -> None:
    """P6: after a failover behind one address no connection stays with the demoted server, also no idle one."""
    client = build_client(f"{settings.redis_url}?client_name={_NAME}")
    pool = client.connection_pool
    for connection in [pool.get_connection() for _ in range(3)]:
        pool.release(connection)
    assert _connections(redis) == 3

    with refusing(redis), pytest.raises(Unavailable, match=reason):  # type: ignore[operator]
        GateAdmin(client).mark_unknown(1)

    eventually(lambda: _connections(redis) == 0)
    GateAdmin(client).mark_unknown(1)
    client.close()


@_REFUSALS
def test_a_refused_write_ends_the_connections_of_an_async_client(
    settings: Settings, redis: Redis, refusing: object, reason: str
) -> None:
    """P6: the same for the API's client."""

    async def run() -> None:
        async with build_async_client(f"{settings.redis_url}?client_name={_NAME}") as client:
            pool = client.connection_pool
            for connection in [await pool.get_connection() for _ in range(3)]:  # type: ignore[no-untyped-call]
                await pool.release(connection)
            assert _connections(redis) == 3
            with refusing(redis), pytest.raises(Unavailable, match=reason):  # type: ignore[operator]
                await AsyncGate(client).require_writable()
            await asyncio.to_thread(eventually, lambda: _connections(redis) == 0)
            await AsyncGate(client).require_writable()

    asyncio.run(run())


def test_a_refused_right_is_logged_by_the_sweep(
    limited_redis_url: str, redis: Redis, resources: Resources, caplog: pytest.LogCaptureFixture
) -> None:
    """P5: whether the gate lost a pause cannot be found out without INFO, so the sweep does not ignore its refusal."""
    redis.execute_command("ACL", "SETUSER", "limited", "on", "nopass", "~*", "+@all", "-info")  # type: ignore[no-untyped-call]
    client = build_client(limited_redis_url)

    sweep(Celery("tests", set_as_current=False), replace(resources, gate_admin=GateAdmin(client)), grace_seconds=10)

    assert LogEvent.GATE_CHECK_REFUSED in caplog.text
    assert "refuses a right that the service needs, so grant it: User limited has no permissions" in caplog.text
    client.close()
