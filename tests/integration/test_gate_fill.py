"""A cold gate is filled from the database and from what stands in the log undecided."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis

from service.domain.coupon import Coupon, Override
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from service.usecases import gate_fill
from service.usecases.coupons import CouponService
from service.usecases.gate_fill import GateFiller
from tests.builders import AT_MS
from tests.gate_client import GateClient, seat
from tests.log import Log

MakeCoupon = Callable[..., Coupon]


def test_who_was_decided_and_who_waits_has_a_seat(
    gate_filler: GateFiller, gate_admin: GateAdmin, gate_client: GateClient, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P6: an emptied gate knows again whom it has admitted, decided or not, and admits no more than are left."""
    coupon = make_coupon(quantity=4)
    decided = {user: real_log.ask(coupon.id, user) for user in (1, 2)}
    real_log.issue()
    waiting = {user: real_log.ask(coupon.id, user) for user in (3,)}

    gate_filler.fill(coupon.id)

    assert {user: gate_admin.seat_holder(coupon.id, user) for user in (1, 2, 3)} == decided | waiting
    judged = gate_client.admit(*(seat(user, coupon_id=coupon.id) for user in (1, 3, 4, 5)))
    assert [one.verdict for one in judged] == [
        Verdict.DUPLICATE,
        Verdict.DUPLICATE,
        Verdict.ADMITTED,
        Verdict.SOLD_OUT,
    ]


def test_only_the_live_have_a_seat(
    gate_filler: GateFiller, gate_admin: GateAdmin, real_log: Log, make_coupon: MakeCoupon, ids: RequestIds
) -> None:
    """Step 2: the refused have none, strangers' undecided records take none, and other coupons' are not counted."""
    coupon, other = make_coupon(quantity=1), make_coupon()
    for user in (1, 2):
        real_log.ask(coupon.id, user)
    held = real_log.ask(other.id, 1, fault="22012 1")
    real_log.issue()
    real_log.append(other.id, 2, request_id=None)
    real_log.append(other.id, 3, ids.derive(LogPosition(0, 0), other.id, 3, AT_MS))

    gate_filler.fill(coupon.id)
    gate_filler.fill(other.id)

    assert gate_admin.seat_holder(coupon.id, 1)
    assert gate_admin.seat_holder(coupon.id, 2) is None
    assert [gate_admin.seat_holder(other.id, user) for user in (1, 2, 3)] == [held, None, None]


def test_of_two_undecided_requests_of_a_user_the_first_has_the_seat(
    gate_filler: GateFiller, gate_admin: GateAdmin, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P5: the repeat is told the id of the request that will be issued, not of the one that will be a duplicate."""
    coupon = make_coupon()
    first = real_log.ask(coupon.id, 7)
    real_log.ask(coupon.id, 7)

    gate_filler.fill(coupon.id)

    assert gate_admin.seat_holder(coupon.id, 7) == first


def test_a_repeat_that_waits_does_not_take_the_seat_of_the_one_decided(
    gate_filler: GateFiller, gate_admin: GateAdmin, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P5: what the database has comes before what the log's tail says."""
    coupon = make_coupon()
    first = real_log.ask(coupon.id, 7)
    real_log.issue()
    real_log.ask(coupon.id, 7)

    gate_filler.fill(coupon.id)

    assert gate_admin.seat_holder(coupon.id, 7) == first


def test_a_warm_gate_is_left_as_it_is(
    gate_filler: GateFiller, gate_admin: GateAdmin, gate_client: GateClient, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """P6: filling is for cold gates; the seats of one that is open are newer than any reading."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    gate_client.admit(seat(1, "taken", coupon.id))
    real_log.ask(coupon.id, 2)

    gate_filler.fill(coupon.id)

    assert [gate_admin.seat_holder(coupon.id, user) for user in (1, 2)] == ["taken", None]


def test_many_at_a_cold_gate_fill_it_once(
    gate_filler: GateFiller, redis: Redis, real_log: Log, make_coupon: MakeCoupon
) -> None:
    """Step 2: one fills, the others wait for it."""
    coupon = make_coupon()
    real_log.ask(coupon.id, 1)
    redis.config_resetstat()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(gate_filler.fill, coupon.id) for _ in range(8)]:
            done.result()

    assert redis.info("commandstats")["cmdstat_rename"]["calls"] == 1


@pytest.mark.usefixtures("real_log")
def test_who_finds_a_filler_at_work_leaves_it_to_him(
    gate_filler: GateFiller, gate_admin: GateAdmin, make_coupon: MakeCoupon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 2: the database and the log are read by one; the others wait, and not for ever."""
    monkeypatch.setattr(gate_fill, "_WAIT_SECONDS", 0.2)
    coupon = make_coupon()

    with gate_admin.fill_lock(coupon.id):
        gate_filler.fill(coupon.id)
        meanwhile = gate_admin.is_cold(coupon.id)
    gate_filler.fill(coupon.id)

    assert (meanwhile, gate_admin.is_cold(coupon.id)) == (True, False)


@pytest.mark.usefixtures("real_log")
def test_nobody_knows_a_coupon_that_does_not_exist(gate_filler: GateFiller, gate_client: GateClient) -> None:
    """Step 2: the gate refuses by itself what the database has never seen."""
    gate_filler.fill(999)

    assert gate_client.admit(seat(1, coupon_id=999))[0].verdict is Verdict.UNKNOWN_COUPON


@pytest.mark.usefixtures("real_log")
def test_a_coupon_that_was_asked_for_too_early_is_known_once_it_is_made(
    gate_filler: GateFiller, gate_client: GateClient, make_coupon: MakeCoupon
) -> None:
    """Section 4: after its 201 a coupon can be asked for, also where somebody had tried its id before."""
    early = make_coupon().id + 1
    gate_filler.fill(early)

    coupon = make_coupon()
    gate_filler.fill(coupon.id)

    assert coupon.id == early
    assert gate_client.admit(seat(1, coupon_id=coupon.id))[0].verdict is Verdict.ADMITTED


@pytest.mark.usefixtures("real_log")
def test_a_gate_that_was_emptied_between_two_words_is_filled_again(
    gate_filler: GateFiller, gate_client: GateClient, redis: Redis, make_coupon: MakeCoupon
) -> None:
    """P6: a flush between sold_out's look and its word leaves a hash of one field, which is no gate and no wall."""
    coupon = make_coupon()
    redis.hset(f"gate:{coupon.id}", "sold_out", "1")

    gate_filler.fill(coupon.id)

    assert gate_client.admit(seat(1, coupon_id=coupon.id))[0].verdict is not Verdict.COLD


def test_a_seat_that_comes_back_while_the_gate_is_filled_is_free(
    gate_filler: GateFiller,
    gate_admin: GateAdmin,
    coupon_service: CouponService,
    real_log: Log,
    make_coupon: MakeCoupon,
) -> None:
    """P6: the filling read a request as undecided that is refused before it ends; its user may ask again."""
    coupon = make_coupon()
    real_log.ask(coupon.id, 7)
    fill = gate_admin.fill

    def overtaken(coupon: Coupon, seats: Iterable[tuple[int, str]]) -> None:
        coupon_service.change(coupon.id, {"override": Override.CLOSED})
        real_log.issue()
        coupon_service.change(coupon.id, {"override": Override.NONE})
        fill(coupon._replace(version=2), seats)

    gate_admin.fill = overtaken  # type: ignore[method-assign]
    gate_filler.fill(coupon.id)

    assert not gate_admin.is_cold(coupon.id)
    assert gate_admin.seat_holder(coupon.id, 7) is None
