"""The API dies, freezes and is told to stop, with requests under way."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from redis import Redis

from service.crash_points import CrashPoint
from service.gate.keys import seats_key
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene

#: promised: work that a killed process held goes on by then
_FILLED_SECONDS = 10.0
#: a seat is kept for the produce timeout and what clocks may differ by, half a minute
_LAPSED_SECONDS = 60.0


@row(1, "API", "kill -9 before the broker's ack", seconds=15)
def test_killed_before_the_ack(scene: Scene, hands: Hands) -> None:
    """The user heard nothing, and the seat is kept: pressed again, it is the same request."""
    with scene.users():
        coupon = scene.system.make_coupon(5)
        with hands.frozen("kafka"), ThreadPoolExecutor(1) as aside:
            unheard = aside.submit(scene.system.ask, coupon, 1)
            seat = scene.system.eventually(lambda: scene.system.redis.hget(seats_key(coupon), "1"))
            hands.kill("api")
            hands.bitten(unheard.result() is None, "the request was under way")
        scene.recovers(since=time.monotonic())
        assert isinstance(seat, bytes)
        scene.demand(scene.receipt(coupon, 1) == seat.decode(), "the repeat is the same request")


@row(1, "API", "kill -9 between the seat and the log", seconds=12)
def test_killed_with_a_seat(scene: Scene, hands: Hands) -> None:
    """The seat is there and nothing was sent: pressed again, the same request is sent."""
    coupon = scene.system.make_coupon(5)
    seat = seat_of_nothing(scene, hands, coupon, 1)
    scene.demand(scene.receipt(coupon, 1) == seat, "the repeat is the same request")
    scene.demand(scene.system.final(seat)["state"] == "issued", "the repeat is issued")
    with scene.users():
        scene.recovers(since=time.monotonic())


@row(1, "API", "kill -9 between the seat and the log, its user gone, and of whoever frees the seat", seconds=60)
def test_killed_as_it_frees_a_seat(scene: Scene, hands: Hands) -> None:
    """A seat that nothing came of is free again once the log is past all that could have come."""
    coupon = scene.system.make_coupon(2)
    for user in (1, 2):
        seat_of_nothing(scene, hands, coupon, user)
    scene.demand(scene.system.press(coupon, 3).json()["code"] == "sold_out", "both seats are taken")
    armed = [hands.arm(point) for point in (CrashPoint.SEATS_EXPIRED, CrashPoint.SEATS_RELEASED)]
    with scene.users():
        for one in armed:
            hands.reached(one, within_seconds=_LAPSED_SECONDS)
        scene.system.eventually(lambda: scene.system.press(coupon, 3).status_code == 202)
        scene.system.eventually(lambda: scene.system.press(coupon, 4).status_code == 202)
        scene.recovers(since=time.monotonic())


def seat_of_nothing(scene: Scene, hands: Hands, coupon: int, user: int) -> str:
    """The user has a seat with the coupon and the API died before it sent anything; the request's id."""
    armed = hands.arm(CrashPoint.API_ADMITTED)
    # the client may find first that the API it was connected to is the one before
    unheard = scene.system.eventually(lambda: scene.system.ask(coupon, user) is None and not armed.exists())
    hands.bitten(unheard, "the user heard nothing")
    hands.reached(armed)
    scene.stack.wait_up("api")
    seat = scene.system.redis.hget(seats_key(coupon), str(user))
    assert isinstance(seat, bytes)
    return seat.decode()


@row(2, "API", "kill -9 after the broker's ack, before the answer", seconds=12)
def test_killed_after_the_ack(scene: Scene, hands: Hands) -> None:
    """The user heard nothing and presses again: the second record is taken for a redelivery of the first."""
    coupon, offsets = scene.system.make_coupon(5), "SELECT coalesce(sum(next_offset), 0) FROM offsets"
    before = scene.system.count(offsets)
    with hands.frozen("issuer"):  # so that the first is not decided before the second is there
        armed = hands.arm(CrashPoint.API_ACKNOWLEDGED)
        hands.bitten(scene.system.ask(coupon, 1) is None, "the user heard nothing")
        hands.reached(armed)
        scene.stack.wait_up("api")
        receipt = scene.receipt(coupon, 1)
    scene.demand(scene.system.final(receipt)["state"] == "issued", "the repeat is issued")
    scene.system.eventually(lambda: scene.system.count(offsets) == before + 2)
    rows = scene.system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon)
    scene.demand(rows == 1, f"two records, {rows} rows")
    with scene.users():
        scene.recovers(since=time.monotonic())


@row(2, "API", "kill -9 in a change of a coupon", seconds=12)
@pytest.mark.parametrize("point", [point for point in CrashPoint if point.startswith("change.")])
def test_killed_in_a_change(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """It is there whole or not at all, the gate hears of it whoever dies, and asked for again it is the same."""
    coupon = scene.system.make_coupon(1)
    with scene.users():
        scene.demand(scene.system.final(scene.receipt(coupon, 1))["state"] == "issued", "the only one is gone")
        scene.system.eventually(lambda: scene.system.press(coupon, 2).json().get("code") == "sold_out")
        armed = hands.arm(point)
        with pytest.raises(httpx.HTTPError):
            scene.system.http.patch(f"/coupons/{coupon}", json={"quantity": 2})
        hands.reached(armed)
        scene.recovers(since=time.monotonic())
        if point is CrashPoint.CHANGE_WRITTEN:
            scene.system.http.patch(f"/coupons/{coupon}", json={"quantity": 2}).raise_for_status()
        scene.system.eventually(lambda: scene.system.press(coupon, 3).status_code == 202)
        repeat = scene.system.http.patch(f"/coupons/{coupon}", json={"quantity": 2}).json()
        scene.demand(repeat["quantity"] == 2, repeat)
    changes = scene.system.count("SELECT count(*) FROM coupon_changes WHERE coupon_id = :id AND version > 0", id=coupon)
    scene.demand(changes == 1, f"{changes} changes are recorded")


@row(2, "API", "kill -9 as a raised quantity lets those on standby in", seconds=15)
@pytest.mark.parametrize("point", [CrashPoint.STANDBY_WRITTEN, CrashPoint.STANDBY_COMMITTED])
def test_killed_as_it_promotes(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """The change stands, and whoever waited for a seat is issued in his turn, once."""
    coupon = scene.system.make_coupon(1, waitlist=2)
    with scene.users():
        with hands.frozen("worker"):  # so that the seat is held and nobody else promotes
            held = scene.receipt(coupon, 1, fault="22012 2")
            waiting = [scene.receipt(coupon, user) for user in (2, 3)]
            scene.system.eventually(lambda: scene.system.standing(waiting[1])["state"] == "standby")
            armed = hands.arm(point)
            with pytest.raises(httpx.HTTPError):
                scene.system.http.patch(f"/coupons/{coupon}", json={"quantity": 2})
            hands.reached(armed)
        scene.recovers(since=time.monotonic())
        ended = [scene.system.final(receipt)["state"] for receipt in (*waiting, held)]
        scene.demand(ended == ["issued", "refused", "issued"], ended)


@row(2, "API", "kill -9 in a replay of a dead letter", seconds=20)
@pytest.mark.parametrize("point", [CrashPoint.REPLAY_WRITTEN, CrashPoint.REPLAY_COMMITTED])
def test_killed_in_a_replay(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """Asked for again it is done once, and stands once in the audit trail."""
    repeat = killed_in_an_action(scene, hands, "replay", point)
    scene.demand(repeat["state"] == "issued", repeat)


@row(2, "API", "kill -9 in a discard of a dead letter", seconds=20)
@pytest.mark.parametrize("point", [CrashPoint.DISCARD_WRITTEN, CrashPoint.DISCARD_COMMITTED])
def test_killed_in_a_discard(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """Asked for again it is done once, and stands once in the audit trail."""
    repeat = killed_in_an_action(scene, hands, "discard", point)
    scene.demand(repeat["state"] == "discarded", repeat)


def killed_in_an_action(scene: Scene, hands: Hands, action: str, point: CrashPoint) -> dict[str, Any]:
    """An operator's action on a dead letter ends in the middle; what its repeat answers."""
    coupon = scene.system.make_coupon(5)
    with scene.users():
        receipt = scene.receipt(coupon, 1, fault="22012 3")
        scene.demand(scene.system.final(receipt)["state"] == "dead", "it is dead")
        letter = scene.system.count("SELECT id FROM dead_letters WHERE request_id = :id", id=receipt)
        armed = hands.arm(point)
        with pytest.raises(httpx.HTTPError):
            scene.system.http.post(f"/dead-letters/{letter}/{action}")
        hands.reached(armed)
        scene.recovers(since=time.monotonic())
        repeat: dict[str, Any] = scene.system.http.post(f"/dead-letters/{letter}/{action}").json()
    acts = scene.system.count("SELECT count(*) FROM dead_letter_actions WHERE dead_letter_id = :id", id=letter)
    scene.demand(acts == 1, f"{acts} actions in the trail")
    return repeat


@row(26, "API", "kill -9 while it fills a cold gate", seconds=20)
@pytest.mark.parametrize("point", [CrashPoint.GATE_FILLING, CrashPoint.GATE_FILLED])
def test_killed_while_it_fills_the_gate(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """Another fills it: a filler that is gone is in nobody's way for long."""
    coupon = scene.system.make_coupon(5)
    with scene.users():
        armed = hands.arm(point)
        scene.system.redis.flushdb()
        hands.reached(armed)
        scene.stack.wait_up("api")
        since = time.monotonic()
        served = scene.system.final(scene.receipt(coupon, 1))["state"] == "issued"
        scene.in_time(since, _FILLED_SECONDS, served, "served")


@row(3, "API", "SIGTERM with requests under way", seconds=20)
def test_told_to_stop(scene: Scene, hands: Hands) -> None:
    """Who was under way is answered by the process that ends, and no acknowledgement is left over."""
    with scene.users(), ThreadPoolExecutor(8) as aside:
        coupon = scene.system.make_coupon(100)
        with hands.frozen("kafka"):
            under_way = [aside.submit(scene.system.ask, coupon, user) for user in range(1, 9)]
            scene.system.eventually(lambda: seats(scene.system.redis, coupon) == 8)
            ending = hands.terminate("api")
        answers = [one.result() for one in under_way]
        hands.gone(ending)
        scene.demand(all(answer and answer.status_code == 202 for answer in answers), answers)
        scene.recovers(since=time.monotonic())
    said = (scene.stack.directory / "log" / "api.log").read_text()
    scene.demand("records were not acknowledged" not in said, "every record was acknowledged before the end")


@row(4, "API", "SIGSTOP until users give up, SIGCONT", seconds=20)
def test_frozen(scene: Scene, hands: Hands) -> None:
    """Requests that users gave up are carried out when it wakes; their repeats are the same requests."""
    with scene.users():
        with hands.frozen("api"):
            scene.turns_red("api")
            scene.users_hear_nothing()
        scene.recovers(since=time.monotonic())


def seats(redis: "Redis", coupon: int) -> int:
    """How many users have a seat with a coupon at the gate."""
    found = redis.hlen(seats_key(coupon))
    assert isinstance(found, int)
    return found
