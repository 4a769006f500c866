"""The gate's upkeep: filling, seats that come back, and its absence."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service import resources
from service.config import Settings
from service.domain.coupon import Coupon, Override
from service.domain.errors import Unavailable
from service.gate.async_gate import AsyncGate
from service.gate.gate_admin import GateAdmin
from service.gate.keys import RUN_ID_KEY, UNACKNOWLEDGED_KEY, Verdict
from tests.builders import AT_MS, coupon
from tests.gate_client import GateClient, seat

LATER = AT_MS + 1


def test_a_seat_goes_back_only_from_its_owner(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Step 2: a late word about an old request does not take the seat from the user's new one."""
    gate_admin.fill(coupon(quantity=1), [])
    gate_client.admit(seat(7, "mine"))

    strangers = gate_admin.release([(1, 7, "another"), (1, 8, "mine"), (2, 7, "mine")], LATER)
    full = gate_client.admit(seat(9))[0].verdict
    owners = gate_admin.release([(1, 7, "mine")], LATER)

    assert (strangers, full, owners) == (0, Verdict.SOLD_OUT, 1)
    assert gate_client.admit(seat(9))[0].verdict is Verdict.ADMITTED


def test_a_seat_tried_again_since_stays(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Step 3: a repeat that is on its way to the log keeps its seat from the sweep that saw only the first try."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(7, "mine", now_ms=AT_MS))
    gate_client.admit(seat(7, "again", now_ms=AT_MS + 500))

    swept = gate_admin.release([(1, 7, "mine")], tried_until_ms=AT_MS)

    assert swept == 0
    assert gate_admin.seat_holder(1, 7) == "mine"
    assert gate_admin.unacknowledged(AT_MS + 500, 10) == {"mine": AT_MS + 500}
    assert gate_admin.release([(1, 7, "mine")], tried_until_ms=AT_MS + 500) == 1
    assert gate_admin.unacknowledged(AT_MS + 500, 10) == {}


def test_the_gate_gives_back_what_never_left(
    settings: Settings, gate_client: GateClient, gate_admin: GateAdmin
) -> None:
    """Step 3: a definite failure to produce frees the seat at once."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(7, "mine"))

    async def release() -> None:
        async with AsyncRedis.from_url(settings.redis_url) as redis:
            await AsyncGate(redis).release(seat(7, "mine"))

    asyncio.run(release())

    assert gate_admin.seat_holder(1, 7) is None
    assert gate_admin.unacknowledged(LATER, 10) == {}


def test_filling_does_not_overwrite_an_open_gate(gate_client: GateClient, gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: two that fill at once leave one gate; seats taken meanwhile are not lost, and nothing half-built stays."""
    gate_admin.fill(coupon(quantity=2), [(1, "one")])
    gate_client.admit(seat(2, "two"))

    gate_admin.fill(coupon(quantity=2), [(1, "one"), (3, "stale")])

    assert [gate_admin.seat_holder(1, user) for user in (1, 2, 3)] == ["one", "two", None]
    assert gate_client.admit(seat(4))[0].verdict is Verdict.SOLD_OUT
    left = {bytes(key) for key in redis.scan_iter("gate:1*") if redis.ttl(key) == -1}
    assert left == {b"gate:1", b"gate:1:seats"}


def test_many_seats_are_filled_in_whole(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: a gate opens with every seat in it, however many, and none of them runs out."""
    gate_admin.fill(coupon(quantity=20_000), ((user, f"r{user}") for user in range(12_000)))

    assert redis.hlen("gate:1:seats") == 12_000
    assert redis.ttl("gate:1:seats") == -1


def test_one_fills_at_a_time(gate_admin: GateAdmin) -> None:
    """Step 2: a thousand requests at a cold gate read the database once."""
    with gate_admin.fill_lock(1) as mine, gate_admin.fill_lock(1) as second, gate_admin.fill_lock(2) as elsewhere:
        assert (mine, second, elsewhere) == (True, False, True)

    with gate_admin.fill_lock(1) as again:
        assert again


def test_two_fillers_at_once_leave_one_whole_gate(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: of two gates built at the same moment one stands, whole."""
    lines = [[(user, name) for user in range(5_000)] for name in ("a", "b")]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(gate_admin.fill, coupon(quantity=9_999), line) for line in lines]:
            done.result()

    assert redis.hlen("gate:1:seats") == 5_000
    assert len(set(redis.hvals("gate:1:seats"))) == 1


def test_sold_out_is_told_and_not_of_strangers(gate_client: GateClient, gate_admin: GateAdmin) -> None:
    """Step 2: once issued = quantity the gate refuses without counting; a coupon it does not know stays cold."""
    gate_admin.fill(coupon(quantity=9), [])

    gate_admin.update_coupons([coupon(quantity=9, issued=9), coupon(2, quantity=9, issued=9)])

    assert gate_client.admit(seat(1))[0].verdict is Verdict.SOLD_OUT
    assert gate_admin.is_cold(2)


@pytest.fixture(params=["closed", "silent"])
def away(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Redis that is not there: its port is closed, or it takes connections and says nothing."""
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


@pytest.mark.parametrize("call", _CALLS, ids=["is_cold", "fill", "release", "tell", "filling"])
def test_upkeep_says_that_redis_is_away(call: Callable[[GateAdmin], Any], away: str) -> None:
    """P6: a closed port and a black hole are both Unavailable, with the limits that bootstrap sets."""
    redis = Redis.from_url(away, **resources._redis_options())

    with pytest.raises(Unavailable, match="Redis is unavailable"):
        call(GateAdmin(redis))

    redis.close()


_ASKS: list[Callable[[AsyncGate], Awaitable[Any]]] = [
    lambda gate: gate.admit(seat(1)),
    lambda gate: gate.record_offsets([(seat(1), 3)]),
    lambda gate: gate.release(seat(1)),
    lambda gate: gate.read_offsets(1, 1, 0),
    lambda gate: gate.ping(),
]


@pytest.mark.parametrize("ask", _ASKS, ids=["admit", "note", "release", "ahead", "ping"])
def test_the_gate_says_that_redis_is_away(ask: Callable[[AsyncGate], Awaitable[Any]], away: str) -> None:
    """P6: a request is not left waiting for a Redis that does not answer; the database is asked instead."""

    async def asked() -> None:
        async with AsyncRedis.from_url(away, **resources._redis_options()) as redis:
            with pytest.raises(Unavailable, match="Redis is unavailable"):
                await ask(AsyncGate(redis))

    asyncio.run(asked())


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
    ids=["more coupons, fewer seats", "more seats", "a version was left out", "no news", "fewer seats", "paused"],
)
def test_who_has_a_seat_and_no_coupon_gives_it_up_when_there_is_room(
    gate_admin: GateAdmin, now: Coupon, emptied: bool
) -> None:
    """P6: those who were refused as sold out keep the gate full, until a coupon may be there for someone else."""
    gate_admin.fill(_BEFORE, [(1, "issued"), (2, "sold out")])

    gate_admin.update_coupons([now])

    assert gate_admin.is_cold(1) is emptied


def test_a_gate_is_forgotten_when_its_server_was_started_anew(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: the last second of what it was told may be lost, and nobody tells it again; unsettled appends stay."""
    gate_admin.reset_if_state_lost()
    gate_admin.fill(coupon(), [(1, "one")])
    redis.zadd(UNACKNOWLEDGED_KEY, {"one": AT_MS})
    assert not gate_admin.reset_if_state_lost()
    assert gate_admin.seat_holder(1, 1) == "one"

    redis.set(RUN_ID_KEY, "another life")

    assert gate_admin.reset_if_state_lost()
    assert gate_admin.is_cold(1)
    assert gate_admin.seat_holder(1, 1) is None
    assert gate_admin.unacknowledged(LATER, 10) == {"one": AT_MS}
    assert not gate_admin.reset_if_state_lost()
