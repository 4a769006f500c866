"""Readiness of the API: a fault or a degraded part with its reason, from real servers that refuse the work."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from service.config import Settings
from service.domain.errors import Unavailable
from service.gate.async_gate import AsyncGate
from service.gate.client import build_async_client
from service.store import engine
from service.store.logs import Log
from service.stream import clients, topics
from service.stream.producer import RequestProducer
from service.stream.readiness import LogReadiness
from service.usecases.log_watch import LogWatch
from service.usecases.readiness import Readiness, ReadinessCheck
from service.usecases.undecided import UndecidedPartitions
from tests.builders import TOPIC_ID, key_register
from tests.waiting import eventually

AWAY = "127.0.0.1:9"


def _readiness_check(
    settings: Settings, store: Engine, gate: AsyncGate, producer: RequestProducer, log: LogReadiness
) -> ReadinessCheck:
    """Return a check of a process whose topic is the open log."""
    watch = LogWatch(settings, store, Log(1, TOPIC_ID))
    undecided = UndecidedPartitions(settings, store, watch)
    return ReadinessCheck(settings, store, gate, producer, log, watch, undecided, key_register())


def _check(settings: Settings, checks: int = 1) -> Readiness:
    """Return the last result of so many checks by one process, one after another."""

    async def run() -> Readiness:
        store = engine.build(settings.database_url, "tests readiness")
        producer = RequestProducer(clients.build_producer(settings))
        async with build_async_client(settings.redis_url) as redis:
            log = LogReadiness(topics.build_admin(settings), settings.topic_min_insync_replicas)
            checked = _readiness_check(settings, store, AsyncGate(redis), producer, log)
            results = [await checked.check() for _ in range(checks)]
        producer.close(1)
        store.dispose()
        return results[-1]

    return asyncio.run(run())


def _without(settings: Settings, *parts: str) -> Settings:
    values = {
        "kafka": {"kafka_bootstrap_servers": AWAY},
        "postgresql": {"database_url": f"postgresql://coupons@{AWAY}/coupons"},
        "redis": {"redis_url": f"redis://{AWAY}/0"},
    }
    return settings.model_copy(update={key: value for part in parts for key, value in values[part].items()})


@pytest.mark.parametrize(
    ("away", "faults", "degraded"),
    [
        ([], [], []),
        (["redis"], [], ["redis"]),
        (["postgresql"], [], ["postgresql"]),
        (["kafka"], ["kafka"], []),
        (["postgresql", "redis"], ["postgresql", "redis"], []),
        (["kafka", "redis"], ["kafka"], ["redis"]),
    ],
    ids=lambda parts: "+".join(parts) or "none",
)
@pytest.mark.usefixtures("store", "redis")
def test_kafka_and_one_of_the_stores_are_required(
    settings: Settings, away: list[str], faults: list[str], degraded: list[str]
) -> None:
    """The API is ready while it can accept a request, and names what it works without."""
    found = _check(_without(settings, *away))

    assert (found.faults, found.degraded, sorted(found.reasons)) == (faults, degraded, sorted(away))


@contextmanager
def _redis_refusing_writes(redis: "Redis") -> Iterator[None]:
    redis.replicaof("127.0.0.1", 9)
    try:
        yield
    finally:
        redis.replicaof("NO", "ONE")


@pytest.mark.usefixtures("store")
def test_a_redis_that_only_reads_is_degraded(settings: Settings, redis: Redis) -> None:
    """A demoted server answers PING, so readiness writes."""
    with _redis_refusing_writes(redis):
        found = _check(settings)

    assert found.degraded == ["redis"]
    assert "read only replica" in found.reasons["redis"]


@pytest.mark.usefixtures("store", "full_redis")
def test_a_redis_whose_memory_is_full_is_degraded(settings: Settings) -> None:
    """It answers every read, so readiness writes. Celery's broker on the same server stops with it."""
    found = _check(settings)

    assert (found.faults, found.degraded) == ([], ["redis"])
    assert "maxmemory" in found.reasons["redis"]


@pytest.mark.usefixtures("store", "evicting_redis")
def test_a_redis_that_deletes_keys_is_degraded(settings: Settings) -> None:
    """The policy may be changed while the API runs, or be wrong on a server that was away at its start."""
    found = _check(settings)

    assert (found.faults, found.degraded) == ([], ["redis"])
    assert "maxmemory-policy is allkeys-lru" in found.reasons["redis"]


@pytest.mark.usefixtures("store")
def test_a_right_that_redis_refuses_is_named(settings: Settings, redis: Redis, limited_redis_url: str) -> None:
    """P5: without INFO a lost pause is not noticed, so a refused INFO is reported as a missing right."""
    redis.execute_command("ACL", "SETUSER", "limited", "on", "nopass", "~*", "+@all", "-info")  # type: ignore[no-untyped-call]

    found = _check(settings.model_copy(update={"redis_url": limited_redis_url}))

    assert found.degraded == ["redis"]
    assert found.reasons["redis"].startswith("Redis refuses a right that the service needs, so grant it: ")
    assert "'info'" in found.reasons["redis"]


@pytest.mark.usefixtures("redis")
def test_a_postgresql_that_only_reads_is_degraded(settings: Settings, admin: Engine, limited_url: str) -> None:
    """A read-only server answers every query, so readiness writes, also where the URL allows such a server."""
    with admin.begin() as tx:
        tx.execute(text("ALTER ROLE limited SUPERUSER"))
        tx.execute(text("ALTER ROLE limited SET default_transaction_read_only = on"))

    found = _check(settings.model_copy(update={"database_url": f"{limited_url}?target_session_attrs=any"}))

    assert (found.faults, found.degraded) == ([], ["postgresql"])
    assert "read-only transaction" in found.reasons["postgresql"]


@pytest.mark.usefixtures("redis")
def test_a_right_that_postgresql_refuses_is_named(settings: Settings, limited_url: str) -> None:
    """A missing GRANT is a fault of configuration and not an absent server."""
    found = _check(settings.model_copy(update={"database_url": limited_url}))

    assert found.degraded == ["postgresql"]
    assert found.reasons["postgresql"].startswith("PostgreSQL refuses a right that the service needs, so grant it: ")
    assert "permission denied for table write_checks" in found.reasons["postgresql"]


@pytest.mark.usefixtures("store")
def test_a_part_is_checked_at_most_once_a_second(settings: Settings, redis: Redis) -> None:
    """However many probes ask, the parts do the work of one."""
    redis.config_resetstat()

    _check(settings, checks=50)

    calls: dict[str, dict[str, int]] = redis.info("commandstats")
    assert calls["cmdstat_info"]["calls"] == 1


@pytest.mark.usefixtures("redis")
def test_a_part_that_does_not_answer_has_one_check(settings: Settings, store: Engine, admin: Engine) -> None:
    """P7: probes of a database that hangs do not take the pool's connections one after another."""
    asking = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tests readiness'"
    with admin.begin() as blocker:
        blocker.execute(text("LOCK TABLE write_checks IN ACCESS EXCLUSIVE MODE"))

        async def probe() -> tuple[Readiness, int]:
            database = engine.build(settings.database_url, "tests readiness")
            producer = RequestProducer(clients.build_producer(settings))
            async with build_async_client(settings.redis_url) as redis:
                log = LogReadiness(topics.build_admin(settings), 1)
                check = _readiness_check(settings, database, AsyncGate(redis), producer, log)
                await check.check()
                found = await check.check()
            with store.begin() as tx:
                connections = int(tx.execute(text(asking)).scalar_one())
            blocker.rollback()
            await asyncio.to_thread(eventually, lambda: not database.pool.checkedout())  # type: ignore[attr-defined]
            producer.close(1)
            database.dispose()
            return found, connections

        found, connections = asyncio.run(probe())

    assert found.degraded == ["postgresql"]
    assert "no answer for " in found.reasons["postgresql"]
    assert connections == 1


def test_too_few_in_sync_replicas_are_a_fault(settings: Settings) -> None:
    """A broker that answers cannot acknowledge a record while replicas are missing."""
    log = LogReadiness(topics.build_admin(settings), min_insync_replicas=2)

    with pytest.raises(Unavailable, match=r"partition 0 has 1 in-sync replicas, fewer than min.insync.replicas \(2\)"):
        log.require_appendable(1.0)


def test_another_topic_is_no_alert_while_kafka_does_not_answer(settings: Settings, store: Engine) -> None:
    """Kafka's absence is the alert then. The topic must not be used until it has been compared again."""
    away = settings.model_copy(update={"kafka_bootstrap_servers": AWAY})
    watch = LogWatch(away, store, Log(1, TOPIC_ID))
    watch.fault = watch.seen_fault = fault = "the topic was created again"

    with pytest.raises(Unavailable):
        watch.compare()

    found: list[str | None] = [watch.fault, watch.seen_fault]
    assert found == [fault, None]
