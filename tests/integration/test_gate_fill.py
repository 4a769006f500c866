"""A cold gate is filled from the database and from the undecided records of the log."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from service.domain.coupon import Coupon, Override
from service.domain.errors import Unavailable
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.gate.gate_admin import BegunFill, GateAdmin
from service.gate.keys import Verdict
from service.usecases import gate_fill
from service.usecases.coupons import CouponService
from service.usecases.gate_fill import GateFiller
from tests.builders import AT_MS, TOPIC_ID
from tests.gate_client import GateClient, seat
from tests.log import Log

MakeCoupon = Callable[..., Coupon]


def test_decided_and_undecided_requests_have_seats(
    gate_filler: GateFiller, gate_admin: GateAdmin, gate_client: GateClient, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P6: a filled gate has the seats of all admitted requests, decided or not, and admits only as many as are left."""
    coupon = make_coupon(quantity=4)
    decided = {user: real_log.append_request(coupon.id, user) for user in (1, 2)}
    real_log.issue()
    undecided = {user: real_log.append_request(coupon.id, user) for user in (3,)}

    gate_filler.fill(coupon.id)

    assert {user: gate_admin.seat_holder(coupon.id, user) for user in (1, 2, 3)} == decided | undecided
    admissions = gate_client.admit(*(seat(user, coupon_id=coupon.id) for user in (1, 3, 4, 5)))
    assert [admission.verdict for admission in admissions] == [
        Verdict.DUPLICATE,
        Verdict.DUPLICATE,
        Verdict.ADMITTED,
        Verdict.SOLD_OUT,
    ]


def test_only_live_requests_of_our_own_have_seats(
    gate_filler: GateFiller, gate_admin: GateAdmin, real_log: Log, make_coupon: MakeCoupon, ids: RequestIds
) -> None:
    """Refused requests and undecided records of other producers have no seat; other coupons' are not counted."""
    coupon, other = make_coupon(quantity=1), make_coupon()
    for user in (1, 2):
        real_log.append_request(coupon.id, user)
    held = real_log.append_request(other.id, 1, fault="22012 1")
    real_log.issue()
    real_log.append(other.id, 2, request_id=None)
    real_log.append(other.id, 3, ids.derive(TOPIC_ID, LogPosition(0, 0), other.id, 3, AT_MS))

    gate_filler.fill(coupon.id)
    gate_filler.fill(other.id)

    assert gate_admin.seat_holder(coupon.id, 1)
    assert gate_admin.seat_holder(coupon.id, 2) is None
    assert [gate_admin.seat_holder(other.id, user) for user in (1, 2, 3)] == [held, None, None]


def test_the_first_of_two_undecided_requests_of_a_user_has_the_seat(
    gate_filler: GateFiller, gate_admin: GateAdmin, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P5: a repeat gets the id of the request that will be issued, not of the one that will be a duplicate."""
    coupon = make_coupon()
    first = real_log.append_request(coupon.id, 7)
    real_log.append_request(coupon.id, 7)

    gate_filler.fill(coupon.id)

    assert gate_admin.seat_holder(coupon.id, 7) == first


def test_an_undecided_repeat_does_not_take_the_seat_of_a_decided_request(
    gate_filler: GateFiller, gate_admin: GateAdmin, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P5: a row in the database takes precedence over an undecided record."""
    coupon = make_coupon()
    first = real_log.append_request(coupon.id, 7)
    real_log.issue()
    real_log.append_request(coupon.id, 7)

    gate_filler.fill(coupon.id)

    assert gate_admin.seat_holder(coupon.id, 7) == first


def test_an_open_gate_is_left_unchanged(
    gate_filler: GateFiller, gate_admin: GateAdmin, gate_client: GateClient, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P6: only a cold gate is filled; the seats of an open one are newer than anything read."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    gate_client.admit(seat(1, "taken", coupon.id))
    real_log.append_request(coupon.id, 2)

    gate_filler.fill(coupon.id)

    assert [gate_admin.seat_holder(coupon.id, user) for user in (1, 2)] == ["taken", None]


def test_concurrent_fills_read_once(
    gate_filler: GateFiller, redis: Redis, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """One fills, the others wait for it."""
    coupon = make_coupon()
    real_log.append_request(coupon.id, 1)
    redis.config_resetstat()

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(gate_filler.fill, coupon.id) for _ in range(8)]:
            future.result()

    assert redis.info("commandstats")["cmdstat_rename"]["calls"] == 1


@pytest.mark.usefixtures("real_log")
def test_a_fill_waits_for_another_process_and_not_forever(
    gate_filler: GateFiller, gate_admin: GateAdmin, make_coupon: MakeCoupon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process reads the database and the log; the others wait for it a few seconds."""
    monkeypatch.setattr(gate_fill, "_WAIT_SECONDS", 0.2)
    coupon = make_coupon()

    with gate_admin.fill_lock(coupon.id):
        gate_filler.fill(coupon.id)
        meanwhile = gate_admin.is_cold(coupon.id)
    gate_filler.fill(coupon.id)

    assert (meanwhile, gate_admin.is_cold(coupon.id)) == (True, False)


@pytest.mark.usefixtures("real_log")
def test_a_refill_that_another_process_blocks_is_no_outage_of_redis(
    coupon_service: CouponService, gate_admin: GateAdmin, make_coupon: MakeCoupon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis answers, so the error names the gate."""
    monkeypatch.setattr(gate_fill, "_WAIT_SECONDS", 0.2)
    coupon = make_coupon()

    with gate_admin.fill_lock(coupon.id), pytest.raises(Unavailable) as refused:
        coupon_service.refill_gate(coupon.id)

    assert str(refused.value) == (
        f"The gate is unavailable: another process is still filling coupon {coupon.id}; try again"
    )


@pytest.mark.usefixtures("real_log")
def test_a_coupon_that_does_not_exist_is_refused_by_the_gate(gate_filler: GateFiller, gate_client: GateClient) -> None:
    """The gate itself refuses a coupon that has no row."""
    gate_filler.fill(999)

    assert gate_client.admit(seat(1, coupon_id=999))[0].verdict is Verdict.UNKNOWN_COUPON


@pytest.mark.usefixtures("real_log")
def test_a_coupon_that_was_requested_before_it_was_created_can_be_requested_afterwards(
    gate_filler: GateFiller, gate_client: GateClient, make_coupon: MakeCoupon
) -> None:
    """After its 201 a coupon can be requested, although its id was marked as not existing before."""
    early = make_coupon().id + 1
    gate_filler.fill(early)

    coupon = make_coupon()
    gate_filler.fill(coupon.id)

    assert coupon.id == early
    assert gate_client.admit(seat(1, coupon_id=coupon.id))[0].verdict is Verdict.ADMITTED


@pytest.mark.usefixtures("real_log")
def test_a_hash_without_capacity_is_filled(
    gate_filler: GateFiller, gate_client: GateClient, redis: Redis, make_coupon: MakeCoupon
) -> None:
    """P6: a flush between two calls can leave a hash of one field; it counts as cold."""
    coupon = make_coupon()
    redis.hset(f"gate:{coupon.id}", "sold_out", "1")

    gate_filler.fill(coupon.id)

    assert gate_client.admit(seat(1, coupon_id=coupon.id))[0].verdict is not Verdict.COLD


def test_a_seat_that_is_released_during_the_fill_is_free(
    gate_filler: GateFiller,
    gate_admin: GateAdmin,
    coupon_service: CouponService,
    real_log: Log,
    make_coupon: MakeCoupon,
) -> None:
    """P6: the fill read a request as undecided that is refused before the gate is open; its user can request again."""
    coupon = make_coupon()
    real_log.append_request(coupon.id, 7)
    fill = gate_admin.fill

    def fill_after_a_refusal(coupon: Coupon, seats: Iterable[tuple[int, str]], begun: BegunFill | None = None) -> bool:
        coupon_service.change(coupon.id, {"override": Override.CLOSED})
        real_log.issue()
        coupon_service.change(coupon.id, {"override": Override.NONE})
        return fill(coupon._replace(version=2), seats, begun)

    gate_admin.fill = fill_after_a_refusal  # type: ignore[method-assign]
    gate_filler.fill(coupon.id)

    assert not gate_admin.is_cold(coupon.id)
    assert gate_admin.seat_holder(coupon.id, 7) is None


def test_a_gate_filled_after_a_flush_is_not_emptied_by_the_sweep(
    gate_filler: GateFiller,
    gate_admin: GateAdmin,
    gate_client: GateClient,
    redis: Redis,
    real_log: Log,
    make_coupon: MakeCoupon,
) -> None:
    """P6: FLUSHALL also deletes the sweep's run id; the gate that was filled since stays, seats included."""
    coupon = make_coupon()
    first = real_log.append_request(coupon.id, 1)
    gate_filler.fill(coupon.id)
    gate_admin.reset_if_state_lost()

    redis.flushall()
    gate_filler.fill(coupon.id)
    gate_client.admit(seat(2, "second", coupon.id))
    hash_before = redis.hgetall(f"gate:{coupon.id}")
    redis.config_resetstat()
    evicted = gate_admin.reset_if_state_lost()
    gate_filler.fill(coupon.id)

    assert not evicted
    assert redis.hgetall(f"gate:{coupon.id}") == hash_before
    assert [gate_admin.seat_holder(coupon.id, user) for user in (1, 2)] == [first, "second"]
    assert "cmdstat_rename" not in redis.info("commandstats")
