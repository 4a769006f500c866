"""Keys and values in Redis that this service never writes: what they cost, and how they are replaced."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import Engine

from service.config import Settings
from service.domain.errors import Unavailable
from service.gate.async_gate import AsyncGate
from service.gate.client import build_async_client, build_client
from service.gate.gate_admin import GateAdmin
from service.gate.keys import PROGRESS_KEY, RUN_ID_KEY, SHARED_KEY_TYPES, UNACKNOWLEDGED_KEY, Verdict
from service.log_events import LogEvent
from service.store import checkpoints
from service.usecases.coupons import CouponService
from tests.builders import AT_MS, coupon
from tests.gate_client import GateClient, seat

Write = Callable[["Redis"], Any]
#: no script writes any of them as an offset
NO_OFFSETS = ["abc", "", "-5", "1.5", "nan", "9" * 30, str(2**63), b"\xff"]


def _set_type(key: str) -> Write:
    """Replace a key by a set: no key of the gate is one."""

    def write(redis: "Redis") -> None:
        redis.delete(key)
        redis.sadd(key, "x")

    return write


@pytest.mark.parametrize("offset", NO_OFFSETS)
def test_a_malformed_progress_costs_the_position_only(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis, offset: str | bytes
) -> None:
    """The request is admitted; the other partitions keep their progress."""
    gate_admin.fill(coupon(), [])
    redis.hset(PROGRESS_KEY, mapping={"0": offset, "5": "7", "x": "3", b"\xfe": "3"})

    (admission,) = gate_client.admit(seat(1))

    assert admission.verdict is Verdict.ADMITTED
    assert gate_client.progress() == {5: 7}


def test_a_progress_of_another_type_costs_the_position_only(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """The request is admitted, and the sweep deletes the key."""
    gate_admin.fill(coupon(), [])
    _set_type(PROGRESS_KEY)(redis)

    (admission,), before = gate_client.admit(seat(1)), gate_client.progress()
    gate_admin.delete_wrong_types()
    gate_admin.publish_progress({0: 12})

    assert (admission.verdict, before) == (Verdict.ADMITTED, {})
    assert gate_client.progress() == {0: 12}


@pytest.mark.parametrize("offset", NO_OFFSETS)
def test_the_next_publication_replaces_a_malformed_progress(
    gate_admin: GateAdmin, redis: Redis, offset: str | bytes
) -> None:
    """An offset that is there is still never decreased."""
    redis.hset(PROGRESS_KEY, mapping={"0": offset, "1": "20"})

    gate_admin.publish_progress({0: 12, 1: 19})

    assert redis.hgetall(PROGRESS_KEY) == {b"0": b"12", b"1": b"20"}


def test_the_repair_publishes_the_checkpoints(
    coupon_service: CouponService, store: Engine, log_id: int, redis: Redis
) -> None:
    """An offset that is a number and wrong is replaced as well."""
    with store.begin() as tx:
        checkpoints.ensure_checkpoints(tx, log_id, {0: 3, 1: 4})
    redis.hset(PROGRESS_KEY, mapping={"0": "abc", "1": str(10**15), "x": "1"})

    coupon_service.repair_shared_keys()

    assert redis.hgetall(PROGRESS_KEY) == {b"0": b"3", b"1": b"4"}


@pytest.mark.parametrize("offset", NO_OFFSETS)
def test_the_look_up_has_no_position_from_malformed_offsets(
    settings: Settings, redis: Redis, offset: str | bytes
) -> None:
    """The state of a request does not depend on what Redis holds."""
    redis.hset("gate:1:seats", "7", "request-of-7")
    redis.hset("gate:1:offsets", "7", offset)

    async def read() -> list[int | None]:
        async with build_async_client(settings.redis_url) as client:
            return await AsyncGate(client).read_offsets([(1, 7, "request-of-7")])

    assert asyncio.run(read()) == [None]


def _set_field(field: str, value: str | bytes) -> Write:
    return lambda redis: redis.hset("gate:1", field, value)


_MALFORMED: dict[str, Write] = {
    **{
        f"{field}={value!r}": _set_field(field, value)
        for field in ("capacity", "opens", "closes")
        for value in ("abc", "1e3", "-", "9" * 30, b"\xff")
    },
    "capacity=''": _set_field("capacity", ""),
    "capacity='-1'": _set_field("capacity", "-1"),
    "no opens": lambda redis: redis.hdel("gate:1", "opens"),
    "no closes": lambda redis: redis.hdel("gate:1", "closes"),
    "no hash": _set_type("gate:1"),
    "seats are no hash": _set_type("gate:1:seats"),
}


@pytest.mark.parametrize("write", _MALFORMED.values(), ids=_MALFORMED.keys())
def test_a_malformed_coupon_is_cold_and_filled_again(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis, write: Write
) -> None:
    """The other coupons of the same call do not notice it."""
    gate_admin.fill(coupon(quantity=1), [(9, "nine")])
    gate_admin.fill(coupon(2), [])
    write(redis)

    admissions = gate_client.admit(seat(1), seat(1, coupon_id=2))
    filled = gate_admin.fill(coupon(quantity=2), [(9, "nine")])
    again = gate_client.admit(seat(9), seat(1))

    assert [admission.verdict for admission in admissions] == [Verdict.COLD, Verdict.ADMITTED]
    assert filled
    assert [admission.verdict for admission in again] == [Verdict.DUPLICATE, Verdict.ADMITTED]


@pytest.mark.parametrize("write", [_set_field("capacity", "abc"), _set_type("gate:1")])
def test_a_malformed_coupon_is_filled_before_a_request_finds_it(
    gate_admin: GateAdmin, redis: Redis, write: Write
) -> None:
    """A fill replaces what no script writes."""
    write(redis)

    assert gate_admin.fill(coupon(), [])
    assert redis.hget("gate:1", "capacity") == b"10"


@pytest.mark.parametrize(
    "write",
    [*(_set_field(field, "abc") for field in ("version", "capacity", "quantity")), _set_type("gate:1")],
    ids=["version", "capacity", "quantity", "type"],
)
def test_a_malformed_coupon_holds_up_no_change_of_another_one(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis, write: Write
) -> None:
    """P6: a later coupon of the same batch is updated, and the malformed one is cold or up to date."""
    for number in (1, 2):
        gate_admin.fill(coupon(number), [])
    write(redis)

    gate_admin.update_coupons(coupon(number, quantity=5, issued=5)._replace(version=1) for number in (1, 2))

    verdicts = [admission.verdict for admission in gate_client.admit(seat(1), seat(1, coupon_id=2))]
    assert verdicts[0] in {Verdict.COLD, Verdict.SOLD_OUT}
    assert verdicts[1] is Verdict.SOLD_OUT


def test_seats_of_another_type_hold_up_no_release_of_another_coupon(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """P6: one such key must not keep a whole batch of decisions from the gate."""
    for number in (1, 2):
        gate_admin.fill(coupon(number), [])
    gate_client.admit(seat(7, "two", coupon_id=2))
    _set_type("gate:1:seats")(redis)

    assert gate_admin.release([(1, 7, "one"), (2, 7, "two")], AT_MS) == 1
    assert gate_admin.seat_holder(2, 7) is None


def test_offsets_of_another_type_cost_positions_only(
    settings: Settings, gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """The requests of the call count as acknowledged, and the other coupon's offset is recorded."""
    first, second = seat(7, "one"), seat(7, "two", coupon_id=2)
    for number in (1, 2):
        gate_admin.fill(coupon(number), [])
    gate_client.admit(first, second)
    _set_type("gate:1:offsets")(redis)

    async def record() -> None:
        async with AsyncRedis.from_url(settings.redis_url) as client:
            await AsyncGate(client).admit([], [(first, 3), (second, 4)])

    asyncio.run(record())

    assert gate_admin.unacknowledged(AT_MS, 10) == {}
    assert redis.hgetall("gate:2:offsets") == {b"7": b"4"}


def test_a_seat_that_is_not_text_is_a_failure_of_redis(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis
) -> None:
    """The database decides about the requests of that call."""
    gate_admin.fill(coupon(), [])
    redis.hset("gate:1:seats", "7", b"\xff")

    with pytest.raises(Unavailable, match="Redis is unavailable: it has a seat that is not text"):
        gate_client.admit(seat(7))


@pytest.mark.parametrize("key", SHARED_KEY_TYPES)
def test_the_sweep_deletes_a_shared_key_of_another_type(
    gate_client: GateClient, gate_admin: GateAdmin, redis: Redis, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    """P6: afterwards the gate admits, fills, and takes follow-ups again; keys of the right type stay."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(1))
    gate_admin.record_sweep()
    before = {kept: redis.type(kept) for kept in redis.scan_iter() if kept != key.encode()}
    _set_type(key)(redis)

    gate_admin.delete_wrong_types()

    assert LogEvent.GATE_KEY_DELETED in caplog.text
    assert key in caplog.text
    assert {kept: redis.type(kept) for kept in redis.scan_iter()} == before
    gate_admin.push_follow_up(b"x")
    assert gate_admin.pop_follow_up(0.5) == b"x"
    assert gate_client.admit(seat(2))[0].verdict is Verdict.ADMITTED
    assert gate_admin.fill(coupon(2), [])


def test_keys_that_are_no_coupons_hold_up_no_reset(gate_admin: GateAdmin, redis: Redis) -> None:
    """P6: after a restart of the server every coupon is evicted, whatever else looks like one."""
    gate_admin.fill(coupon(), [])
    redis.hset("gate:1", "run_id", "an earlier run")
    redis.set(RUN_ID_KEY, "an earlier run")
    for key in ("gate:7x", "gate:" + "9" * 30, b"gate:8\xff"):
        redis.set(key, "x")
    _set_type("gate:2")(redis)

    gate_admin.reset_if_state_lost()

    assert gate_admin.coupon_ids() == set()


def test_seats_are_read_beside_malformed_ones(gate_client: GateClient, gate_admin: GateAdmin, redis: Redis) -> None:
    """The recovery of a lost log names every user it can."""
    gate_admin.fill(coupon(), [])
    gate_client.admit(seat(7, "seven"))
    redis.hset("gate:1:seats", mapping={"abc": "x", "8": b"\xff"})
    redis.hset("gate:1:offsets", "8", "abc")
    redis.zadd(UNACKNOWLEDGED_KEY, {b"\xff": float("inf")})

    (seats,) = gate_admin.iterate_seats(1)

    assert sorted((one.user_id, one.request_id, one.offset, one.attempted_at_ms) for one in seats) == [
        (7, "seven", None, AT_MS),
        (8, "\udcff", None, 2**53),
    ]


@pytest.fixture
def service_admin(settings: Settings, redis: Redis) -> Iterator[GateAdmin]:
    """The gate's blocking client as the service builds it."""
    del redis  # the server is emptied
    client = build_client(settings.redis_url)
    yield GateAdmin(client)
    client.close()


def test_an_unacknowledged_request_that_is_not_text_is_resolved(service_admin: GateAdmin, redis: Redis) -> None:
    """It does not stay at the head of the queue."""
    redis.zadd(UNACKNOWLEDGED_KEY, {b"\xff": float("-inf"), b"ok": 5})

    found = service_admin.unacknowledged(10, 10)
    service_admin.resolve_unacknowledged([request_id for request_id in found if not request_id.isascii()])

    assert found == {"\udcff": 0, "ok": 5}
    assert service_admin.unacknowledged(10, 10) == {"ok": 5}


@pytest.mark.parametrize("command", ["hmget", "hlen", "hgetall"])
def test_a_refused_right_is_not_taken_for_a_malformed_value(
    limited_redis_url: str, gate_admin: GateAdmin, redis: Redis, command: str
) -> None:
    """The coupon keeps its seats, and the right is named."""
    gate_admin.fill(coupon(), [(9, "nine")])
    redis.execute_command("ACL", "SETUSER", "limited", "reset", "on", "nopass", "~*", "+@all", f"-{command}")  # type: ignore[no-untyped-call]

    with pytest.raises(Unavailable, match=f"has no permissions to run the .{command}. command"):
        GateClient(limited_redis_url).admit(seat(1))

    assert gate_admin.seat_holder(1, 9) == "nine"
