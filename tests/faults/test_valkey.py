"""Valkey dies, freezes, forgets and refuses: it is speed, not truth."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from redis.exceptions import RedisError

from service.gate.keys import seats_key
from tests.faults.crowd import Crowd
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene

#: a failing request is retried by then, however its hint was lost
_RETRIED_SECONDS = 30.0


@row(26, "Valkey", "kill -9, everything in it deleted, in mid-sale", seconds=20)
def test_emptied(scene: Scene, hands: Hands) -> None:
    """The gate fills itself again, and what Celery's queues held is found by the sweep."""
    coupon = scene.system.make_coupon(10)
    with scene.users():
        scene.receipt(coupon, 1, fault="22012 2")
        hands.crash("valkey")
        shutil.rmtree(scene.stack.directory / "valkey" / "appendonlydir")
        hands.start("valkey")
        hands.bitten(not scene.system.redis.exists(seats_key(coupon)), "it has forgotten")
        retried_soon(scene, hands, coupon)


@row(28, "Valkey", "kill -9, and the end of its file is lost", seconds=20)
def test_forgetful(scene: Scene, hands: Hands) -> None:
    """Who had a seat may have none: admitted twice, decided once."""
    with scene.users(per_second=120, at_once=32):
        before = seats(scene.system.redis)
        hands.crash("valkey")
        (log,) = (scene.stack.directory / "valkey" / "appendonlydir").glob("*.incr.aof")
        with log.open("r+b") as end:
            end.truncate(log.stat().st_size * 9 // 10)
        hands.start("valkey")
        hands.bitten(before - seats(scene.system.redis), "seats were forgotten")
        scene.recovers(since=time.monotonic())


@row(27, "Valkey", "SIGSTOP", seconds=20)
def test_frozen(scene: Scene, hands: Hands) -> None:
    """Silence costs each call a second at most: the database answers, readiness says what is degraded."""
    with scene.users() as crowd:
        with hands.frozen("valkey"):
            scene.system.eventually(lambda: degraded(scene))
            still_accepts(scene, crowd)
        scene.recovers(since=time.monotonic())


@row(27, "Valkey", "stopped", seconds=20)
def test_away(scene: Scene, hands: Hands) -> None:
    """The database answers; what failed meanwhile is retried when Celery has its broker back."""
    coupon = scene.system.make_coupon(10)
    with scene.users() as crowd:
        with hands.away("valkey"):
            scene.system.eventually(lambda: degraded(scene))
            still_accepts(scene, crowd)
            scene.receipt(coupon, 1, fault="22012 1")
        retried_soon(scene, hands, coupon)


@row(29, "Valkey", "out of memory, read-only, its scripts flushed", seconds=20)
@pytest.mark.parametrize("how", ["memory", "replica"])
def test_refusing(scene: Scene, hands: Hands, how: str) -> None:
    """It answers, but with errors: as good as away, and over when it is over."""
    with scene.users() as crowd:
        missing = scripts_missing(scene.system.redis)
        scene.system.redis.script_flush()
        still_accepts(scene, crowd)
        scene.demand(scripts_missing(scene.system.redis) > missing, "its scripts had to be told again")
        hands.breaks("valkey")
        with refusing(scene.system.redis, how):
            with pytest.raises(RedisError):
                scene.system.redis.set("a-key", "a value")
            hands.bitten(felt=True, what="it refuses to write")
            still_accepts(scene, crowd)
        scene.recovers(since=time.monotonic())


def scripts_missing(redis: Redis) -> int:
    """How often it was asked for a script that it did not have."""
    found: dict[str, dict[str, int]] = redis.info("errorstats")
    return found.get("errorstat_NOSCRIPT", {"count": 0})["count"]


@row(33, "Celery", "its broker is started again while it is idle", seconds=20)
def test_restarted_while_idle(scene: Scene, hands: Hands) -> None:
    """The worker consumes again within half a minute."""
    hands.kill("valkey")
    scene.stack.wait_up("valkey")
    retried_soon(scene, hands, scene.system.make_coupon(10))


def retried_soon(scene: Scene, hands: Hands, coupon: int) -> None:
    """A request that fails once is issued by a retry within its bound, and so is what failed before."""
    since = time.monotonic()
    page = scene.system.final(scene.receipt(coupon, 2, fault="22012 1"))
    scene.in_time(since, _RETRIED_SECONDS, page["state"] == "issued", "retried")
    hands.bitten(page["attempts"] == 2, "it failed once")
    pending = "SELECT count(*) FROM requests WHERE coupon_id = :id AND state = 'retrying'"
    scene.system.eventually(lambda: not scene.system.count(pending, id=coupon))
    scene.in_time(since, _RETRIED_SECONDS, True, "everything was retried")


def still_accepts(scene: Scene, crowd: Crowd) -> None:
    """Users go on being served."""
    before = crowd.accepted
    scene.system.eventually(lambda: crowd.accepted > before + 30)
    scene.demand(crowd.accepted > before, "users are served meanwhile")


def degraded(scene: Scene) -> bool:
    """Whether the API says that it goes on without Valkey."""
    answer = scene.system.http.get("/readyz")
    return answer.status_code == 200 and answer.json()["degraded"] == ["redis"]


def seats(redis: "Redis") -> set[tuple[object, object]]:
    """Who has a seat at the gate, and with which coupon."""
    return {(key, user) for key in redis.scan_iter("gate:*:seats") for user in redis.hkeys(key)}


@contextmanager
def refusing(redis: "Redis", how: str) -> Iterator[None]:
    """Every write is answered with an error."""
    if how == "memory":
        redis.config_set("maxmemory", 1)
    else:
        redis.replicaof("127.0.0.1", 9)
    try:
        yield
    finally:
        redis.config_set("maxmemory", 0)
        redis.replicaof("NO", "ONE")
