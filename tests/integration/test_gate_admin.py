"""The gate's blocking client: fills, released seats, lost state, and Redis away."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.config import Settings
from service.domain.coupon import Coupon, Override
from service.domain.errors import Unavailable
from service.gate.async_gate import AsyncGate
from service.gate.client import build_async_client, build_client
from service.gate.gate_admin import GateAdmin
from service.gate.keys import RUN_ID_KEY, UNACKNOWLEDGED_KEY, Verdict
from service.log_events import LogEvent
from tests.builders import AT_MS, coupon
from tests.gate_client import GateClient, seat

LATER = AT_MS + 1


def test_a_seat_is_released_only_for_its_own_request(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """P5: a late release of an old request does not take the seat from the user's new one."""
    gate_admin.fill(coupon(quantity=1), [])
    gate_client.admit(seat(7, "mine"))

    others = gate_admin.release([(1, 7, "another"), (1, 8, "mine"), (2, 7, "mine")], LATER)
    full = gate_client.admit(seat(9))[0].verdict
    own = gate_admin.release([(1, 7, "mine")], LATER)

    assert (others, full, own) == (0, Verdict.SOLD_OUT, 1)
    assert gate_client.admit(seat(9))[0].verdict is Verdict.ADMITTED


def test_a_seat_stays_when_its_request_was_attempted_again(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """P5: a repeat on its way to the log keeps its seat although the sweep read only the first attempt."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(7, "mine", now_ms=AT_MS))
    gate_client.admit(seat(7, "repeat", now_ms=AT_MS + 500))

    released = gate_admin.release([(1, 7, "mine")], attempted_until_ms=AT_MS)

    assert released == 0
    assert gate_admin.seat_holder(1, 7) == "mine"
    assert gate_admin.unacknowledged(AT_MS + 500, 10) == {"mine": AT_MS + 500}
    assert gate_admin.release([(1, 7, "mine")], attempted_until_ms=AT_MS + 500) == 1
    assert gate_admin.unacknowledged(AT_MS + 500, 10) == {}


def test_the_async_gate_releases_the_seat_of_a_request_that_was_not_sent(
    settings: Settings, gate_client: GateClient, gate_admin: GateAdmin
) -> None:
    """A definite failure to produce releases the seat at once."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(7, "mine"))

    async def release() -> None:
        async with AsyncRedis.from_url(settings.redis_url) as redis:
            await AsyncGate(redis).release(seat(7, "mine"))

    asyncio.run(release())

    assert gate_admin.seat_holder(1, 7) is None
    assert gate_admin.unacknowledged(LATER, 10) == {}


def test_a_fill_does_not_overwrite_an_open_gate(gate_client: GateClient, gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: a second fill changes nothing; seats taken meanwhile stay, and no unfinished key is left."""
    gate_admin.fill(coupon(quantity=2), [(1, "one")])
    gate_client.admit(seat(2, "two"))

    gate_admin.fill(coupon(quantity=2), [(1, "one"), (3, "stale")])

    assert [gate_admin.seat_holder(1, user) for user in (1, 2, 3)] == ["one", "two", None]
    assert gate_client.admit(seat(4))[0].verdict is Verdict.SOLD_OUT
    permanent = {bytes(key) for key in redis.scan_iter("gate:1*") if redis.ttl(key) == -1}
    assert permanent == {b"gate:1", b"gate:1:seats"}


def test_a_fill_writes_every_seat(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: a gate opens with all of its seats, however many, and none of them expires."""
    gate_admin.fill(coupon(quantity=20_000), ((user, f"r{user}") for user in range(12_000)))

    assert redis.hlen("gate:1:seats") == 12_000
    assert redis.ttl("gate:1:seats") == -1


def test_one_process_fills_at_a_time(gate_admin: GateAdmin) -> None:
    """A thousand requests at a cold gate read the database once."""
    with gate_admin.fill_lock(1) as first, gate_admin.fill_lock(1) as second, gate_admin.fill_lock(2) as other:
        assert (first, second, other) == (True, False, True)

    with gate_admin.fill_lock(1) as later:
        assert later


def test_two_concurrent_fills_leave_one_complete_gate(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: of two concurrent fills one takes effect, completely."""
    fills = [[(user, request_id) for user in range(5_000)] for request_id in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(gate_admin.fill, coupon(quantity=9_999), seats) for seats in fills]:
            future.result()

    assert redis.hlen("gate:1:seats") == 5_000
    assert len(set(redis.hvals("gate:1:seats"))) == 1


def test_sold_out_is_published_to_an_open_gate_only(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Once issued = quantity the gate refuses without counting; a cold one stays cold."""
    gate_admin.fill(coupon(quantity=9), [])

    gate_admin.update_coupons([coupon(quantity=9, issued=9), coupon(2, quantity=9, issued=9)])

    assert gate_client.admit(seat(1))[0].verdict is Verdict.SOLD_OUT
    assert gate_admin.is_cold(2)


@pytest.fixture(params=["closed", "silent"])
def away(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a Redis that is away: its port is closed, or it accepts connections and never responds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if request.param == "closed":
            listener.close()
        yield f"redis://127.0.0.1:{port}/0"


_CALLS: list[Callable[[GateAdmin], Any]] = [
    lambda gate: gate.is_cold(1),
    lambda gate: gate.fill(coupon(), [(1, "a")]),
    lambda gate: gate.release([(1, 1, "a")], 0),
    lambda gate: gate.update_coupons([coupon()]),
    lambda gate: gate.fill_lock(1).__enter__(),
]


@pytest.mark.parametrize("call", _CALLS, ids=["is_cold", "fill", "release", "update_coupons", "fill_lock"])
def test_the_blocking_client_raises_unavailable(call: Callable[[GateAdmin], Any], away: str) -> None:
    """P6: a closed port and a server that never responds are both Unavailable, with the client's timeouts."""
    redis = build_client(away)

    with pytest.raises(Unavailable, match="Redis is unavailable"):
        call(GateAdmin(redis))

    redis.close()


_ASYNC_CALLS: list[Callable[[AsyncGate], Awaitable[Any]]] = [
    lambda gate: gate.admit([seat(1)]),
    lambda gate: gate.release(seat(1)),
    lambda gate: gate.read_offsets([(1, 1, "x")]),
    lambda gate: gate.require_writable(),
]


@pytest.mark.parametrize("call", _ASYNC_CALLS, ids=["admit", "release", "read_offsets", "require_writable"])
def test_the_async_client_raises_unavailable(call: Callable[[AsyncGate], Awaitable[Any]], away: str) -> None:
    """P6: a request does not wait for a Redis that does not answer; the database decides instead."""

    async def run() -> None:
        async with build_async_client(away) as redis:
            with pytest.raises(Unavailable, match="Redis is unavailable"):
                await call(AsyncGate(redis))

    asyncio.run(run())


_BEFORE = coupon(quantity=1, waitlist=2)


@pytest.mark.parametrize(
    ("now", "emptied"),
    [
        (_BEFORE._replace(quantity=2, waitlist=0, version=1), True),
        (_BEFORE._replace(waitlist=3, version=1), True),
        (_BEFORE._replace(version=2), True),
        (_BEFORE._replace(quantity=2, version=0), False),
        (_BEFORE._replace(waitlist=1, version=1), False),
        (_BEFORE._replace(override=Override.PAUSED, version=1), False),
    ],
    ids=["more coupons, fewer seats", "more seats", "a version was skipped", "same version", "fewer seats", "paused"],
)
def test_who_has_a_seat_and_no_coupon_gives_it_up_when_there_is_room(
    gate_admin: GateAdmin, now: Coupon, emptied: bool
) -> None:
    """P6: users who were refused as sold out keep the gate full until there may be a coupon for someone."""
    gate_admin.fill(_BEFORE, [(1, "issued"), (2, "sold out")])

    gate_admin.update_coupons([now])

    assert gate_admin.is_cold(1) is emptied


def test_every_gate_is_evicted_after_a_restart_of_the_server(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: the last second of writes may be lost, and nothing sends them again; unacknowledged requests stay."""
    gate_admin.reset_if_state_lost()
    gate_admin.fill(coupon(), [(1, "one")])
    redis.zadd(UNACKNOWLEDGED_KEY, {"one": AT_MS})
    assert not gate_admin.reset_if_state_lost()
    assert gate_admin.seat_holder(1, 1) == "one"

    redis.set(RUN_ID_KEY, "an earlier run")
    redis.hset("gate:1", "run_id", "an earlier run")

    assert gate_admin.reset_if_state_lost()
    assert gate_admin.is_cold(1)
    assert gate_admin.seat_holder(1, 1) is None
    assert gate_admin.unacknowledged(LATER, 10) == {"one": AT_MS}
    assert not gate_admin.reset_if_state_lost()


def test_a_change_does_not_hide_that_the_seats_are_of_an_earlier_run(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: values published after a restart leave the gate's run id as it is, so that the sweep still evicts it."""
    gate_admin.fill(coupon(), [(1, "one")])
    redis.hset("gate:1", "run_id", "an earlier run")

    gate_admin.update_coupons([coupon(override=Override.PAUSED)._replace(version=1)])

    assert redis.hget("gate:1", "override") == b"paused"
    assert gate_admin.reset_if_state_lost()
    assert gate_admin.is_cold(1)


def test_a_fill_that_began_before_a_restart_leaves_the_gate_cold(gate_admin: GateAdmin) -> None:
    """P6: the restarted server may have lost a newer version of the coupon than the fill has read."""
    begun = gate_admin.begin_fill(1)

    gate_admin.fill(coupon(), [(1, "one")], begun._replace(run_id="an earlier run"))

    assert gate_admin.is_cold(1)
    assert gate_admin.seat_holder(1, 1) is None


@pytest.mark.parametrize("swept", [True, False], ids=["after a sweep", "before the first sweep"])
def test_a_fill_that_began_before_a_flush_leaves_the_gate_cold(
    gate_admin: GateAdmin, redis: Redis, *, swept: bool
) -> None:
    """P6: what was published to the cold gate meanwhile, as a pause, was flushed; the fill's values are older."""
    if swept:
        gate_admin.reset_if_state_lost()
    begun = gate_admin.begin_fill(1)
    gate_admin.update_coupons([coupon(override=Override.PAUSED)._replace(version=1)])
    redis.flushall()

    gate_admin.fill(coupon(), [(1, "one")], begun)
    stale_is_cold = gate_admin.is_cold(1)
    gate_admin.fill(coupon(), [])

    assert stale_is_cold
    assert not gate_admin.is_cold(1)


@pytest.mark.parametrize("seats", [[], [(2, "two")]], ids=["no seats", "seats"])
def test_a_fill_that_was_stopped_for_long_leaves_the_gate_cold(
    gate_admin: GateAdmin, gate_client: GateClient, redis: Redis, seats: list[tuple[int, str]]
) -> None:
    """P2: meanwhile another fill, a sale, its end and the eviction may have passed; holders get no second seat."""
    begun = gate_admin.begin_fill(1)
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(1, "one"))
    gate_admin.evict(1)
    redis.pexpire(begun.building, 0)

    assert not gate_admin.fill(coupon(), seats, begun)
    assert gate_client.admit(seat(1))[0].verdict is Verdict.COLD


def test_a_version_kept_for_a_cold_gate_survives_the_sweep(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: a version published after FLUSHALL still keeps an older fill from opening the gate when the sweep has run."""
    redis.flushall()
    gate_admin.update_coupons([coupon()._replace(version=1)])

    evicted = gate_admin.reset_if_state_lost()
    gate_admin.fill(coupon(), [])

    assert not evicted
    assert gate_admin.is_cold(1)


def test_a_reset_is_logged_with_the_number_of_coupons(
    gate_admin: GateAdmin, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator sees how many coupons have to be filled again."""
    for coupon_id in (1, 2, 3):
        gate_admin.fill(coupon(coupon_id), [(1, "one")])
    for coupon_id in (1, 3):
        redis.hset(f"gate:{coupon_id}", "run_id", "an earlier run")

    assert gate_admin.reset_if_state_lost() == 2
    assert [gate_admin.is_cold(coupon_id) for coupon_id in (1, 2, 3)] == [True, False, True]
    assert LogEvent.GATE_RESET in caplog.text
    assert "'coupons': 2" in caplog.text
