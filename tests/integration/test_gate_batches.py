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
from service.gate.async_gate import AsyncGate, SeatRequest
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from tests.builders import AT_MS, coupon
from tests.gate_client import seat

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


def random_batches(random: Random) -> list[Batch]:
    """Build calls in which users press twice, also within one call, and records are acknowledged in later calls."""
    batches: list[Batch] = []
    unacknowledged: list[SeatRequest] = []
    offset = 0
    for call in range(random.randint(1, 6)):
        now_ms = AT_MS + random.randint(0, 10)
        seats = [
            seat(random.randint(1, 6), f"request-{call}-{number}", random.randint(1, 8), now_ms)
            for number in range(random.randint(1, 30))
        ]
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
        is_hash = redis.type(key) == b"hash"
        state[key] = redis.hgetall(key) if is_hash else redis.zrange(key, 0, -1, withscores=True)
    return state


def one_by_one(redis: Redis, batches: Sequence[Batch]) -> list[Any]:
    """Return the verdicts of the scripts that work request by request."""
    admit = redis.register_script((_LUA / "admit_one_by_one.lua").read_text())
    record = redis.register_script((_LUA / "record_one_by_one.lua").read_text())
    results: list[Any] = []
    for batch in batches:
        if batch.acknowledged:
            fields = [
                (str(each.coupon_id), str(each.user_id), each.request_id, str(at)) for each, at in batch.acknowledged
            ]
            record(args=[_pack([field for request in fields for field in request])])
        wanted = [(str(each.coupon_id), str(each.user_id), each.request_id) for each in batch.seats]
        verdicts, progress = _unpack(admit(args=[batch.now_ms, _pack([field for each in wanted for field in each])]))
        pairs = zip(verdicts[::2], verdicts[1::2], strict=True)
        results.append(([(verdict, detail) for verdict, detail in pairs], progress))
    return results


async def in_batches(url: str, batches: Sequence[Batch]) -> list[Any]:
    """Return the same from the gate."""
    results: list[Any] = []
    async with AsyncRedis.from_url(url) as redis:
        gate = AsyncGate(redis)
        for batch in batches:
            others, progress = await gate.admit(batch.seats, batch.now_ms, batch.acknowledged)
            verdicts = [
                others.get(index, (Verdict.ADMITTED, each.request_id)) for index, each in enumerate(batch.seats)
            ]
            flat = [str(number) for pair in progress.items() for number in pair]
            results.append(([(str(verdict), detail) for verdict, detail in verdicts], flat))
    return results


@pytest.mark.parametrize("seed", range(40))
def test_a_batch_has_the_results_of_its_requests_one_by_one(seed: int, redis: Redis, settings: Settings) -> None:
    """P2, P5: the same verdicts, seats, offsets and unacknowledged requests, whatever a call mixes."""
    batches = random_batches(Random(seed))
    _fill(redis, _COUPONS)
    expected = one_by_one(redis, batches)
    expected_state = _state(redis)

    _fill(redis, _COUPONS)
    found = asyncio.run(in_batches(settings.redis_url, batches))

    assert found == expected
    assert _state(redis) == expected_state


def test_the_largest_batch_fits_into_one_call(redis: Redis, settings: Settings) -> None:
    """500 requests and 500 offsets of one coupon are within the limits of a script."""
    _fill(redis, [coupon(quantity=2_000)])
    first = [seat(user) for user in range(101, 601)]
    second = [seat(user) for user in range(601, 1_101)]
    batches = [Batch(AT_MS, first, []), Batch(AT_MS, second, [(each, each.user_id) for each in first])]

    asyncio.run(in_batches(settings.redis_url, batches))

    assert redis.hlen("gate:1:offsets") == 500
    assert redis.zcard("gate:unacknowledged") == 500
