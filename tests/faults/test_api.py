"""Rows in which the API is killed, frozen or terminated while requests are in flight."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from redis import Redis

from service.crash_points import CrashPoint
from service.gate.keys import seats_key
from service.log_events import LogEvent
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario

#: promised: within this time the work of a killed process resumes
_FILLED_SECONDS = 10.0
#: a seat is kept for the produce timeout plus the allowed clock difference, half a minute
_SEATS_EXPIRED_SECONDS = 60.0


@row(1, "API", "kill -9 before the broker's acknowledgement", seconds=15)
def test_killed_before_acknowledgement(scenario: Scenario, faults: FaultInjector) -> None:
    """The user gets no answer and keeps the seat: the repeat is the same request."""
    with scenario.under_load():
        coupon = scenario.system.make_coupon(5)
        with faults.frozen("kafka"), ThreadPoolExecutor(1) as pool:
            unanswered = pool.submit(scenario.system.request_issuance, coupon, 1)
            seat = scenario.system.eventually(lambda: scenario.system.redis.hget(seats_key(coupon), "1"))
            faults.kill("api")
            faults.confirm(unanswered.result() is None, "the request was in flight")
        scenario.recovers(since=time.monotonic())
        assert isinstance(seat, bytes)
        scenario.check(scenario.submit(coupon, 1) == seat.decode(), "the repeat is the same request")


@row(1, "API", "kill -9 after taking a seat, around the produce", seconds=12)
@pytest.mark.parametrize("point", [CrashPoint.API_ADMITTED, CrashPoint.API_PRODUCED])
def test_killed_with_a_seat(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """The user has a seat, and the log has no record or may have one: the repeat produces the same request."""
    coupon = scenario.system.make_coupon(5)
    seat = seat_without_answer(scenario, faults, coupon, 1, point)
    scenario.check(scenario.submit(coupon, 1) == seat, "the repeat is the same request")
    scenario.check(scenario.system.wait_until_final(seat)["state"] == "issued", "the repeat is issued")
    with scenario.under_load():
        scenario.recovers(since=time.monotonic())


@row(
    1,
    "API",
    "kill -9 after taking a seat, before producing, no repeat; and kill -9 of the worker that frees the seat",
    seconds=60,
)
def test_seats_without_a_record_are_freed(scenario: Scenario, faults: FaultInjector) -> None:
    """A seat without a record is released once the watermark is past the last possible append."""
    coupon = scenario.system.make_coupon(2)
    for user in (1, 2):
        seat_without_answer(scenario, faults, coupon, user, CrashPoint.API_ADMITTED)
    scenario.check(
        scenario.system.request_until_answered(coupon, 3).json()["code"] == "sold_out", "both seats are taken"
    )
    points = [faults.arm(point) for point in (CrashPoint.SEATS_EXPIRED, CrashPoint.SEATS_RELEASED)]
    with scenario.under_load():
        for armed in points:
            faults.wait_reached(armed, within_seconds=_SEATS_EXPIRED_SECONDS)
        scenario.system.eventually(lambda: scenario.system.request_until_answered(coupon, 3).status_code == 202)
        scenario.system.eventually(lambda: scenario.system.request_until_answered(coupon, 4).status_code == 202)
        scenario.recovers(since=time.monotonic())


def seat_without_answer(scenario: Scenario, faults: FaultInjector, coupon: int, user: int, point: CrashPoint) -> str:
    """Give the user a seat and kill the API at a point before it answers; return the request id."""
    armed = faults.arm(point)
    # a first request may fail only because its connection leads to the previous API process
    unanswered = scenario.system.eventually(
        lambda: scenario.system.request_issuance(coupon, user) is None and not armed.exists()
    )
    faults.confirm(unanswered, "the user got no answer")
    faults.wait_reached(armed)
    scenario.stack.wait_up("api")
    seat = scenario.system.redis.hget(seats_key(coupon), str(user))
    assert isinstance(seat, bytes)
    return seat.decode()


@row(2, "API", "kill -9 after the broker's acknowledgement, before the answer", seconds=12)
def test_killed_after_acknowledgement(scenario: Scenario, faults: FaultInjector) -> None:
    """The user gets no answer and repeats: the second record is treated as a redelivery of the first."""
    coupon, offsets = scenario.system.make_coupon(5), "SELECT coalesce(sum(next_offset), 0) FROM offsets"
    before = scenario.system.count(offsets)
    with faults.frozen("issuer"):  # so that the first record is not decided before the second is appended
        armed = faults.arm(CrashPoint.API_ACKNOWLEDGED)
        faults.confirm(scenario.system.request_issuance(coupon, 1) is None, "the user got no answer")
        faults.wait_reached(armed)
        scenario.stack.wait_up("api")
        request_id = scenario.submit(coupon, 1)
    scenario.check(scenario.system.wait_until_final(request_id)["state"] == "issued", "the repeat is issued")
    scenario.system.eventually(lambda: scenario.system.count(offsets) == before + 2)
    rows = scenario.system.count("SELECT count(*) FROM requests WHERE coupon_id = :id", id=coupon)
    scenario.check(rows == 1, f"two records, {rows} rows")
    with scenario.under_load():
        scenario.recovers(since=time.monotonic())


@row(2, "API", "kill -9 while it changes a coupon", seconds=12)
@pytest.mark.parametrize("point", [point for point in CrashPoint if point.startswith("change.")])
def test_killed_while_changing_a_coupon(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """The change is atomic, the gate receives it despite the crash, and a repeat changes nothing more."""
    coupon = scenario.system.make_coupon(1)
    with scenario.under_load():
        scenario.check(
            scenario.system.wait_until_final(scenario.submit(coupon, 1))["state"] == "issued", "the only one is issued"
        )
        scenario.system.eventually(
            lambda: scenario.system.request_until_answered(coupon, 2).json().get("code") == "sold_out"
        )
        armed = faults.arm(point)
        with pytest.raises(httpx.HTTPError):
            scenario.system.http.patch(f"/coupons/{coupon}", json={"quantity": 2})
        faults.wait_reached(armed)
        scenario.recovers(since=time.monotonic())
        if point is CrashPoint.CHANGE_WRITTEN:
            scenario.system.http.patch(f"/coupons/{coupon}", json={"quantity": 2}).raise_for_status()
        scenario.system.eventually(lambda: scenario.system.request_until_answered(coupon, 3).status_code == 202)
        repeat = scenario.system.http.patch(f"/coupons/{coupon}", json={"quantity": 2}).json()
        scenario.check(repeat["quantity"] == 2, repeat)
    recorded = "SELECT count(*) FROM coupon_changes WHERE coupon_id = :id AND version > 0"
    changes = scenario.system.count(recorded, id=coupon)
    scenario.check(changes == 1, f"{changes} changes are recorded")


@row(2, "API", "kill -9 while a raised quantity promotes standby requests", seconds=15)
@pytest.mark.parametrize("point", [CrashPoint.STANDBY_WRITTEN, CrashPoint.STANDBY_COMMITTED])
def test_killed_while_promoting_standby(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """The change is kept, and standby requests are issued in order, once each."""
    coupon = scenario.system.make_coupon(1, waitlist=2)
    with scenario.under_load():
        with faults.frozen("worker"):  # so that the seat stays held and no retry promotes
            held = scenario.submit(coupon, 1, fault="22012 2")
            standby = [scenario.submit(coupon, user) for user in (2, 3)]
            scenario.system.eventually(lambda: scenario.system.read_status(standby[1])["state"] == "standby")
            armed = faults.arm(point)
            with pytest.raises(httpx.HTTPError):
                scenario.system.http.patch(f"/coupons/{coupon}", json={"quantity": 2})
            faults.wait_reached(armed)
        scenario.recovers(since=time.monotonic())
        states = [scenario.system.wait_until_final(request_id)["state"] for request_id in (*standby, held)]
        scenario.check(states == ["issued", "refused", "issued"], states)


@row(2, "API", "kill -9 while it replays a dead letter", seconds=20)
@pytest.mark.parametrize("point", [CrashPoint.REPLAY_WRITTEN, CrashPoint.REPLAY_COMMITTED])
def test_killed_while_replaying(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """A repeat completes the replay; it happens once and has one entry in the audit trail."""
    repeat = kill_during_action(scenario, faults, "replay", point)
    scenario.check(repeat["state"] == "issued", repeat)


@row(2, "API", "kill -9 while it discards a dead letter", seconds=20)
@pytest.mark.parametrize("point", [CrashPoint.DISCARD_WRITTEN, CrashPoint.DISCARD_COMMITTED])
def test_killed_while_discarding(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """A repeat completes the discard; it happens once and has one entry in the audit trail."""
    repeat = kill_during_action(scenario, faults, "discard", point)
    scenario.check(repeat["state"] == "discarded", repeat)


def kill_during_action(scenario: Scenario, faults: FaultInjector, action: str, point: CrashPoint) -> dict[str, Any]:
    """Kill the API during an action on a dead letter, then repeat the action; return the repeat's answer."""
    coupon = scenario.system.make_coupon(5)
    with scenario.under_load():
        request_id = scenario.submit(coupon, 1, fault="22012 3")
        scenario.check(scenario.system.wait_until_final(request_id)["state"] == "dead", "the request is dead")
        letter_id = scenario.system.count("SELECT id FROM dead_letters WHERE request_id = :id", id=request_id)
        armed = faults.arm(point)
        with pytest.raises(httpx.HTTPError):
            scenario.system.http.post(f"/dead-letters/{letter_id}/{action}")
        faults.wait_reached(armed)
        scenario.recovers(since=time.monotonic())
        repeat: dict[str, Any] = scenario.system.http.post(f"/dead-letters/{letter_id}/{action}").json()
    actions = "SELECT count(*) FROM dead_letter_actions WHERE dead_letter_id = :id"
    recorded = scenario.system.count(actions, id=letter_id)
    scenario.check(recorded == 1, f"{recorded} actions in the audit trail")
    return repeat


@row(26, "API", "kill -9 while it fills a cold gate", seconds=20)
@pytest.mark.parametrize("point", [CrashPoint.GATE_FILLING, CrashPoint.GATE_FILLED])
def test_killed_while_filling_the_gate(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """Another process fills the gate: the lock of a killed one expires soon."""
    coupon = scenario.system.make_coupon(5)
    with scenario.under_load():
        filling, armed = faults.process("api"), faults.arm(point)
        scenario.system.redis.flushdb()
        faults.wait_reached(armed)
        faults.wait_ended(filling)
        scenario.stack.wait_up("api")
        since = time.monotonic()
        issued = scenario.system.wait_until_final(scenario.submit(coupon, 1))["state"] == "issued"
        scenario.check_in_time(since, _FILLED_SECONDS, issued, "issued")


@row(3, "API", "SIGTERM with requests in flight", seconds=20)
def test_sigterm_with_requests_in_flight(scenario: Scenario, faults: FaultInjector) -> None:
    """The terminating process answers the requests in flight and leaves no record unacknowledged."""
    with scenario.under_load(), ThreadPoolExecutor(8) as pool:
        coupon = scenario.system.make_coupon(100)
        with faults.frozen("kafka"):
            in_flight = [pool.submit(scenario.system.request_issuance, coupon, user) for user in range(1, 9)]
            scenario.system.eventually(lambda: count_seats(scenario.system.redis, coupon) == 8)
            terminating = faults.terminate("api")
        answers = [request.result() for request in in_flight]
        faults.wait_ended(terminating)
        scenario.check(all(answer and answer.status_code == 202 for answer in answers), answers)
        scenario.recovers(since=time.monotonic())
    log = (scenario.stack.directory / "log" / "api.log").read_text()
    scenario.check(LogEvent.PRODUCER_UNACKNOWLEDGED not in log, "every record was acknowledged before the end")


@row(4, "API", "SIGSTOP until clients time out, then SIGCONT", seconds=20)
def test_frozen(scenario: Scenario, faults: FaultInjector) -> None:
    """The thawed API executes requests whose clients have timed out; their repeats are the same requests."""
    with scenario.under_load():
        with faults.frozen("api"):
            scenario.becomes_unready("api")
            scenario.wait_for_unknown_outcome()
        scenario.recovers(since=time.monotonic())


def count_seats(redis: "Redis", coupon: int) -> int:
    """Return how many users have a seat with a coupon at the gate."""
    found = redis.hlen(seats_key(coupon))
    assert isinstance(found, int)
    return found
