"""What a process checks about Redis at its start, and how many connections to PostgreSQL it may open."""

import asyncio
import re
from typing import Any

import pytest
import sqlalchemy
from redis import Redis

from service import resources
from service.api_resources import open_api_resources
from service.config import Settings
from service.domain.errors import Misconfigured
from service.log_events import LogEvent
from service.store import engine
from stack.server_env import ROOT


def _open(settings: Settings) -> None:
    resources.open_resources(settings, "tests").close()


def _logged(caplog: pytest.LogCaptureFixture) -> list[LogEvent]:
    return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]


@pytest.mark.usefixtures("log_id", "evicting_redis")
def test_a_redis_that_deletes_keys_is_refused(settings: Settings) -> None:
    """P6: it would delete seats, and a user without a seat is admitted again."""
    with pytest.raises(Misconfigured, match="maxmemory-policy is allkeys-lru, so it may delete seats: set it to noev"):
        _open(settings)


@pytest.mark.usefixtures("log_id")
def test_a_redis_that_does_not_say_is_named_in_the_log(
    settings: Settings, redis: Redis, limited_redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Some operated servers refuse INFO; the operator must check the policy by hand."""
    redis.execute_command("ACL", "SETUSER", "limited", "on", "nopass", "~*", "+@all", "-info")  # type: ignore[no-untyped-call]

    _open(settings.model_copy(update={"redis_url": limited_redis_url}))

    assert _logged(caplog) == [LogEvent.GATE_POLICY_UNKNOWN]


@pytest.mark.usefixtures("log_id")
def test_without_redis_a_process_starts(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """P6: the database decides meanwhile; readiness checks the policy when Redis answers."""
    _open(settings.model_copy(update={"redis_url": "redis://127.0.0.1:9/0"}))

    assert _logged(caplog) == []


@pytest.mark.usefixtures("log_id")
def test_an_api_has_as_many_connections_as_documented(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets `max_connections` of the server, or the pool of a pooler, adds them up."""
    pools: list[int] = []

    def record(*arguments: Any, **options: Any) -> sqlalchemy.Engine:
        pools.append(options["pool_size"])
        return sqlalchemy.create_engine(*arguments, **options)

    async def open_and_close() -> None:
        async with open_api_resources(resources.open_resources(settings, "api", connections=10)):
            pass

    monkeypatch.setattr(engine, "create_engine", record)
    asyncio.run(open_and_close())

    documented = re.search(r"^\| API \| (\d+) for each", (ROOT / "docs" / "deployment.md").read_text(), re.MULTILINE)
    assert documented
    assert sum(pools) == int(documented[1])
