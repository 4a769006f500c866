"""Coupons that have ended leave the gate with all their keys at once, and come back from the database."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from service.clock import now_ms
from service.config import Settings
from service.domain.coupon import Coupon, Override
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from service.limits import ENDED_FILL_KEEP_SECONDS
from service.store import checkpoints
from service.store.checkpoints import CheckpointAdvance
from service.usecases import gate_eviction
from service.usecases.coupons import CouponService
from service.usecases.gate_eviction import evict_ended_coupons
from service.usecases.gate_fill import GateFiller
from tests.gate_client import GateClient, seat
from tests.log import Log

MakeCoupon = Callable[..., Coupon]
Evict = Callable[..., int]
AdvanceWatermark = Callable[[int], None]
_DAY_SECONDS = 86_400
_CLOSED = {"override": Override.CLOSED}
#: later than every attempt to append a record
_FAR_FUTURE_MS = 2**42


@pytest.fixture
def evict(settings: Settings, store: Engine, ids: RequestIds, gate_admin: GateAdmin) -> Evict:
    """Evict what has ended so many seconds ago; by default just now."""
    return lambda keep_seconds=0: evict_ended_coupons(
        settings.model_copy(update={"gate_keep_seconds": keep_seconds}), store, ids, gate_admin
    )


@pytest.fixture
def sell(make_coupon: MakeCoupon, real_log: Log, gate_filler: GateFiller) -> Callable[..., Coupon]:
    """Create a coupon, decide the requests of users 1 and 2, and fill the gate: `sell(quantity, fault=None)`."""

    def make(quantity: int, fault: str | None = None, **values: Any) -> Coupon:
        coupon = make_coupon(quantity=quantity, **values)
        for user, injected in ((1, fault), (2, None)):
            real_log.append_request(coupon.id, user, fault=injected)
        real_log.issue()
        gate_filler.fill(coupon.id)
        return coupon

    return make


@pytest.fixture
def advance_watermark(store: Engine, log_id: int, real_log: Log) -> AdvanceWatermark:
    """Set the time up to which every record is decided, in all partitions."""

    def advance(at_ms: int) -> None:
        with store.begin() as tx:
            advances = [CheckpointAdvance(at, offset, offset, at_ms) for at, offset in real_log.positions.items()]
            checkpoints.advance(tx, log_id, advances)

    return advance


def _pretend_that_it_ended(redis: Redis, coupon: Coupon, seconds_ago: int) -> None:
    redis.hset(f"gate:{coupon.id}", "ended_at", str(now_ms() - seconds_ago * 1000))


def _verdicts(client: GateClient, coupon: Coupon, *users: int) -> list[Verdict]:
    seats = [seat(user, coupon_id=coupon.id, now_ms=now_ms()) for user in users]
    return [admission.verdict for admission in client.admit(*seats)]


def _keys(redis: Redis, coupon: Coupon) -> list[bytes]:
    return list(redis.scan_iter(f"gate:{coupon.id}*"))


def test_a_sold_out_coupon_is_kept_for_the_set_time(
    sell: Callable[..., Coupon], evict: Evict, advance_watermark: AdvanceWatermark, redis: Redis
) -> None:
    """Most requests for it come now, and each of them is refused without the database."""
    coupon = sell(quantity=2)
    advance_watermark(_FAR_FUTURE_MS)

    assert evict(keep_seconds=60) == 0
    assert sorted(_keys(redis, coupon)) == [b"gate:%d" % coupon.id, b"gate:%d:seats" % coupon.id]

    assert evict() == 1
    assert _keys(redis, coupon) == []


def test_a_request_for_an_evicted_coupon_fills_the_gate_again(
    sell: Callable[..., Coupon],
    evict: Evict,
    advance_watermark: AdvanceWatermark,
    gate_client: GateClient,
    gate_filler: GateFiller,
) -> None:
    """P2: the verdicts are those from before: who has a coupon is a duplicate."""
    coupon = sell(quantity=2)
    advance_watermark(_FAR_FUTURE_MS)
    before = _verdicts(gate_client, coupon, 1, 2, 3)
    assert evict() == 1

    assert _verdicts(gate_client, coupon, 1) == [Verdict.COLD]
    gate_filler.fill(coupon.id)

    assert _verdicts(gate_client, coupon, 1, 2, 3) == before == [*[Verdict.DUPLICATE] * 2, Verdict.SOLD_OUT]


@pytest.mark.parametrize(
    ("quantity", "end"), [(2, {}), (3, _CLOSED), (3, {"closes_at_ms": 1})], ids=["sold out", "closed", "window over"]
)
def test_a_coupon_that_is_filled_after_its_end_is_kept_for_minutes(
    sell: Callable[..., Coupon],
    evict: Evict,
    advance_watermark: AdvanceWatermark,
    coupon_service: CouponService,
    gate_filler: GateFiller,
    redis: Redis,
    quantity: int,
    end: dict[str, Any],
) -> None:
    """One request for each of many old coupons must not fill Redis for a day."""
    coupon = sell(quantity)
    if end:
        coupon_service.change(coupon.id, end)
    advance_watermark(_FAR_FUTURE_MS)
    assert evict() == 1
    gate_filler.fill(coupon.id)

    assert evict(_DAY_SECONDS) == 0  # the end is noted
    _pretend_that_it_ended(redis, coupon, ENDED_FILL_KEEP_SECONDS - 10)
    assert evict(_DAY_SECONDS) == 0
    _pretend_that_it_ended(redis, coupon, ENDED_FILL_KEEP_SECONDS)
    assert evict(_DAY_SECONDS) == 1
    assert _keys(redis, coupon) == []


def test_a_coupon_that_ends_after_a_fill_is_kept_for_the_set_time(
    sell: Callable[..., Coupon],
    evict: Evict,
    advance_watermark: AdvanceWatermark,
    coupon_service: CouponService,
    redis: Redis,
) -> None:
    """Also one that was filled after an earlier end, and opened again."""
    coupon = sell(quantity=2)
    assert redis.hget(f"gate:{coupon.id}", "filled_ended") == b"1"
    coupon_service.change(coupon.id, {"override": Override.PAUSED})
    coupon_service.change(coupon.id, _CLOSED)
    advance_watermark(_FAR_FUTURE_MS)

    assert evict(_DAY_SECONDS) == 0
    _pretend_that_it_ended(redis, coupon, _DAY_SECONDS - 10)
    assert evict(_DAY_SECONDS) == 0
    _pretend_that_it_ended(redis, coupon, _DAY_SECONDS)
    assert evict(_DAY_SECONDS) == 1


@pytest.mark.parametrize(
    ("quantity", "before", "after"),
    [
        (2, {}, {"quantity": 3}),
        (3, _CLOSED, {"override": Override.NONE}),
        (2, _CLOSED, {"override": Override.NONE, "quantity": 3}),
        (3, {"closes_at_ms": 1}, {"closes_at_ms": None}),
    ],
    ids=["raised", "reopened", "raised and reopened", "window moved"],
)
def test_an_evicted_coupon_that_is_opened_again_gives_nobody_a_second_seat(
    sell: Callable[..., Coupon],
    evict: Evict,
    advance_watermark: AdvanceWatermark,
    coupon_service: CouponService,
    gate_client: GateClient,
    gate_filler: GateFiller,
    redis: Redis,
    quantity: int,
    before: dict[str, Any],
    after: dict[str, Any],
) -> None:
    """P2: only the one seat that is free is given, to somebody who has none."""
    coupon = sell(quantity=quantity)
    if before:
        coupon_service.change(coupon.id, before)
    advance_watermark(_FAR_FUTURE_MS)
    assert evict() == 1

    coupon_service.change(coupon.id, after)
    assert _verdicts(gate_client, coupon, 1) == [Verdict.COLD]
    gate_filler.fill(coupon.id)

    assert _verdicts(gate_client, coupon, 1, 2, 3, 4) == [
        *[Verdict.DUPLICATE] * 2,
        Verdict.ADMITTED,
        Verdict.SOLD_OUT,
    ]
    assert redis.ttl(f"gate:{coupon.id}") == redis.ttl(f"gate:{coupon.id}:seats") == -1


@pytest.mark.parametrize(
    ("quantity", "fault", "changed"),
    [
        (3, None, {}),
        (2, None, {"override": Override.PAUSED, "quantity": 3}),
        (3, "22012 2", _CLOSED),
        (1, "22012 2", _CLOSED),
    ],
    ids=["open", "paused", "held", "held and standby"],
)
def test_a_coupon_that_has_not_ended_or_has_open_requests_stays(
    sell: Callable[..., Coupon],
    evict: Evict,
    advance_watermark: AdvanceWatermark,
    coupon_service: CouponService,
    gate_filler: GateFiller,
    redis: Redis,
    quantity: int,
    fault: str | None,
    changed: dict[str, Any],
) -> None:
    """A held or standby request will be decided, and its seat kept or released."""
    coupon = sell(quantity, fault)
    if changed:
        coupon_service.change(coupon.id, changed)
        gate_filler.fill(coupon.id)
    advance_watermark(_FAR_FUTURE_MS)

    assert (evict(), evict()) == (0, 0)
    assert len(_keys(redis, coupon)) == 2


def test_a_coupon_with_an_unacknowledged_request_stays(
    sell: Callable[..., Coupon],
    evict: Evict,
    advance_watermark: AdvanceWatermark,
    gate_client: GateClient,
    gate_admin: GateAdmin,
    coupon_service: CouponService,
    ids: RequestIds,
    redis: Redis,
) -> None:
    """Its user may repeat it under the same request id; the time to keep begins when it is resolved."""
    coupon = sell(quantity=3)
    request_id = ids.mint(coupon.id, 3, now_ms())
    gate_client.admit(seat(3, request_id, coupon.id, now_ms()))
    coupon_service.change(coupon.id, _CLOSED)
    advance_watermark(_FAR_FUTURE_MS)

    assert evict() == 0
    assert redis.hget(f"gate:{coupon.id}", "ended_at") is None

    gate_admin.resolve_unacknowledged([request_id])
    assert evict() == 1


def test_a_coupon_with_an_undecided_record_stays(
    sell: Callable[..., Coupon], evict: Evict, advance_watermark: AdvanceWatermark
) -> None:
    """Records that were appended before the end must have been decided."""
    sell(quantity=2)
    advance_watermark(now_ms())

    assert evict() == 0
    advance_watermark(_FAR_FUTURE_MS)
    assert evict() == 1


@pytest.mark.parametrize(
    "change", [{"waitlist": 1}, {"quantity": 3}, {"closes_at_ms": _FAR_FUTURE_MS}], ids=["waitlist", "raised", "window"]
)
def test_a_change_in_the_middle_keeps_the_coupon(
    sell: Callable[..., Coupon], coupon_service: CouponService, gate_admin: GateAdmin, change: dict[str, Any]
) -> None:
    """The end that was noted is not that of the changed coupon."""
    coupon = sell(quantity=2)
    (ended,) = gate_admin.note_ended([coupon.id], ())
    coupon_service.change(coupon.id, change)

    assert gate_admin.evict_ended(ended) is False


def test_the_end_that_was_noted_does_not_outlast_a_change(
    sell: Callable[..., Coupon], coupon_service: CouponService, gate_admin: GateAdmin, redis: Redis
) -> None:
    """A coupon that is opened and ends again is kept for the whole time again."""
    coupon = sell(quantity=3, closes_at_ms=_FAR_FUTURE_MS)
    coupon_service.change(coupon.id, _CLOSED)
    assert len(gate_admin.note_ended([coupon.id], ())) == 1

    coupon_service.change(coupon.id, {"override": Override.NONE})

    assert redis.hget(f"gate:{coupon.id}", "ended_at") is None
    assert gate_admin.note_ended([coupon.id], ()) == []


def test_something_else_in_the_place_of_a_coupon_is_left_alone(redis: Redis, gate_admin: GateAdmin) -> None:
    """A key of another type, and values that this service does not write."""
    redis.set("gate:1", "text")
    redis.hset("gate:2", mapping={"capacity": "x", "sold_out": "1"})
    redis.hset("gate:3", mapping={"capacity": "1", "sold_out": "1", "ended_at": "soon"})

    (ended,) = gate_admin.note_ended([1, 2, 3], ())

    assert ended.coupon_id == 3
    assert ended.now_ms == ended.ended_at_ms
    assert gate_admin.evict_ended(ended) is False


def test_a_run_that_takes_too_long_goes_on_with_the_next(
    evict: Evict, redis: Redis, advance_watermark: AdvanceWatermark, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery kills a task that takes too long, so a run ends before; it has evicted what it has taken by then."""
    advance_watermark(_FAR_FUTURE_MS)
    monkeypatch.setattr(gate_eviction, "_MAX_SECONDS", 0)
    for coupon_id in range(1_000, 1_700):
        redis.hset(f"gate:{coupon_id}", mapping={"capacity": 1, "version": 0, "sold_out": 1})

    assert [evict(), evict(), evict()] == [500, 200, 0]


def test_the_ends_of_many_coupons_are_noted_in_one_round_trip(gate_admin: GateAdmin, redis: Redis) -> None:
    """One round trip for each of tens of thousands takes longer than a task may."""
    for coupon_id in range(1, 301):
        redis.hset(f"gate:{coupon_id}", mapping={"capacity": 1, "version": 0, "sold_out": 1})
    reads = int(redis.info("stats")["total_reads_processed"])

    ended = gate_admin.note_ended(range(1, 301), awaited=[7])

    assert int(redis.info("stats")["total_reads_processed"]) - reads < 50
    assert {one.coupon_id for one in ended} == {*range(1, 301)} - {7}
