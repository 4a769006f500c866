"""One call of the gate has the result of its requests one by one: compared with scripts that do just that."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.config import Settings
from service.domain.coupon import Coupon, Override
from service.domain.rate_limit import LimitScope, RateLimit, RateLimits
from service.gate.async_gate import SeatRequest
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from tests.builders import AT_MS, coupon
from tests.gate_client import GateAt, seat

_LUA = Path(__file__).parent / "lua"
_pack, _unpack = msgspec.msgpack.encode, msgspec.msgpack.decode
_COUPONS = [
    coupon(quantity=4, waitlist=2),
    coupon(coupon_id=2, quantity=3),
    coupon(coupon_id=3, quantity=2, issued=2),
    coupon(coupon_id=4, override=Override.PAUSED),
    coupon(coupon_id=5, opens_at_ms=AT_MS + 5),
    coupon(coupon_id=6, closes_at_ms=AT_MS + 5),
]
_UNKNOWN = 8


class Batch(NamedTuple):
    """What one call of the gate is given."""

    now_ms: int
    seats: list[SeatRequest]
    acknowledged: list[tuple[SeatRequest, int]]


def random_limits(random: Random) -> RateLimits:
    """Return limits that some of the requests exceed; the states outlive the test."""
    limits = {
        LimitScope.USER: RateLimit(random.randint(1, 6), 5_000),
        LimitScope.ADDRESS: RateLimit(random.randint(5, 20), 6_000),
        LimitScope.ALL: RateLimit(random.randint(20, 100), 7_000),
    }
    return {scope: limit for scope, limit in limits.items() if random.random() < 0.6}


def _seat(random: Random, request_id: str, now_ms: int) -> SeatRequest:
    request = seat(random.randint(1, 6), request_id, random.randint(1, 8), now_ms)
    request.address = random.choice(["192.0.2.1", "192.0.2.2", "2001:db8::/64"])
    return request


def random_batches(random: Random) -> list[Batch]:
    """Build calls in which users press twice, also within one call, and records are acknowledged in later calls."""
    batches: list[Batch] = []
    unacknowledged: list[SeatRequest] = []
    offset, now_ms = 0, AT_MS
    for call in range(random.randint(1, 6)):
        now_ms += random.randint(0, 4)
        seats = [_seat(random, f"request-{call}-{number}", now_ms) for number in range(random.randint(1, 30))]
        random.shuffle(unacknowledged)
        acknowledged, unacknowledged = (
            unacknowledged[: len(unacknowledged) // 2],
            unacknowledged[len(unacknowledged) // 2 :],
        )
        batches.append(Batch(now_ms, seats, [(each, offset := offset + 1) for each in acknowledged]))
        unacknowledged += seats
    return batches


def _fill(redis: Redis, coupons: Sequence[Coupon]) -> None:
    redis.flushdb()
    gate = GateAdmin(redis)
    for each in coupons:
        gate.fill(each, [(6, f"long-ago-{each.id}")])
    gate.mark_unknown(_UNKNOWN)
    gate.publish_progress({0: 12, 5: 7})


def _state(redis: Redis) -> dict[Any, Any]:
    """Return every key of the gate with its value."""
    state: dict[Any, Any] = {}
    for key in redis.scan_iter():
        kind = redis.type(key)
        if kind == b"string":
            state[key] = redis.get(key)
        else:
            state[key] = redis.hgetall(key) if kind == b"hash" else redis.zrange(key, 0, -1, withscores=True)
    return state


def one_by_one(redis: Redis, batches: Sequence[Batch], limits: RateLimits) -> list[Any]:
    """Return the verdicts of the scripts that work request by request.

    The requests are sent coupon by coupon: a limit that several coupons share is used up in this order.
    """
    admit = redis.register_script((_LUA / "admit_one_by_one.lua").read_text())
    record = redis.register_script((_LUA / "record_one_by_one.lua").read_text())
    results: list[Any] = []
    for batch in batches:
        if batch.acknowledged:
            fields = [
                (str(each.coupon_id), str(each.user_id), each.request_id, str(at)) for each, at in batch.acknowledged
            ]
            record(args=[_pack([field for request in fields for field in request])])
        coupon_ids = [each.coupon_id for each in batch.seats]
        order = sorted(range(len(coupon_ids)), key=lambda index: coupon_ids.index(coupon_ids[index]))
        wanted = [
            (str(each.coupon_id), str(each.user_id), each.request_id, each.address)
            for each in map(batch.seats.__getitem__, order)
        ]
        packed = _pack([field for each in wanted for field in each])
        rates = [part for scope, limit in limits.items() for part in (scope, limit.interval_us, limit.burst_us)]
        verdicts, progress = _unpack(admit(args=[batch.now_ms, packed, _pack(rates)]))
        by_index = dict(zip(order, zip(verdicts[::2], verdicts[1::2], strict=True), strict=True))
        results.append(([by_index[index] for index in range(len(order))], progress))
    return results


async def in_batches(url: str, batches: Sequence[Batch], limits: RateLimits) -> list[Any]:
    """Return the same from the gate."""
    results: list[Any] = []
    async with AsyncRedis.from_url(url) as redis:
        gate = GateAt(redis, limits)
        for batch in batches:
            gate.set_time(batch.now_ms)
            others, progress, now_ms = await gate.admit(batch.seats, batch.acknowledged)
            assert now_ms == batch.now_ms
            verdicts = [
                others.get(index, (Verdict.ADMITTED, each.request_id)) for index, each in enumerate(batch.seats)
            ]
            flat = [str(number) for pair in progress.items() for number in pair]
            results.append(([(str(verdict), detail) for verdict, detail in verdicts], flat))
    return results


@pytest.mark.parametrize("seed", range(40))
def test_a_batch_has_the_results_of_its_requests_one_by_one(seed: int, redis: Redis, settings: Settings) -> None:
    """P2, P5: the same verdicts, seats, offsets, unacknowledged requests and limits, whatever a call mixes."""
    random = Random(seed)
    batches, limits = random_batches(random), random_limits(random)
    _fill(redis, _COUPONS)
    expected = one_by_one(redis, batches, limits)
    expected_state = _state(redis)

    _fill(redis, _COUPONS)
    found = asyncio.run(in_batches(settings.redis_url, batches, limits))

    assert found == expected
    assert _state(redis) == expected_state


def test_the_largest_batch_fits_into_one_call(redis: Redis, settings: Settings) -> None:
    """500 requests and 500 offsets of one coupon, each with its own user and address, fit into a script."""
    _fill(redis, [coupon(quantity=2_000)])
    first = [seat(user) for user in range(101, 601)]
    second = [seat(user) for user in range(601, 1_101)]
    batches = [Batch(AT_MS, first, []), Batch(AT_MS, second, [(each, each.user_id) for each in first])]

    for request in (*first, *second):
        request.address = f"192.0.2.{request.user_id}"
    limits = {scope: RateLimit(1_000, 1_000) for scope in LimitScope}
    asyncio.run(in_batches(settings.redis_url, batches, limits))

    assert redis.hlen("gate:1:offsets") == 500
    assert redis.zcard("gate:unacknowledged") == 500
