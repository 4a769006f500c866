"""Tests in which clocks are an hour wrong.

The gate's clock decides about windows, which a test shifts for one API; no clock affects accepted requests.
"""

import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.faults.extra_processes import extra_api
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.system import client_answer

_HOUR_MS = 3_600_000


@row(37, "clock", "an API's clock is an hour wrong", seconds=20)
@pytest.mark.parametrize("offset_ms", [_HOUR_MS, -_HOUR_MS], ids=["fast", "slow"])
def test_an_apis_clock_is_wrong(scenario: Scenario, faults: FaultInjector, offset_ms: int) -> None:
    """Its requests are judged by a shifted clock; what it accepts is issued, whatever the other clocks show."""
    coupon = coupon_open_by_wrong_clock(scenario, offset_ms)
    with scenario.under_load(), extra_api(scenario, offset_ms) as url:
        answer = httpx.post(
            f"{url}/coupons/{coupon}/issuances", json={"user_id": 1}, auth=scenario.system.credentials, timeout=10
        )
        scenario.system.history.append(client_answer(1, coupon, answer))
        faults.confirm(answer.status_code == 202, f"{answer.status_code} by a wrong clock")
        refused = scenario.system.request_issuance(coupon, 2)
        scenario.check(refused is not None and refused.status_code == 409, "the other API's clock is right")
        scenario.check(
            scenario.system.wait_until_final(answer.json()["request_id"])["state"] == "issued", "it was accepted"
        )


@row(37, "clock", "an issuer's clock is an hour wrong", seconds=25)
@pytest.mark.parametrize("offset_ms", [_HOUR_MS, -_HOUR_MS], ids=["fast", "slow"])
def test_an_issuers_clock_is_wrong(scenario: Scenario, faults: FaultInjector, offset_ms: int) -> None:
    """Order and windows do not depend on it."""
    name = f"issuer-{'fast' if offset_ms > 0 else 'slow'}"
    scenario.stack.add_issuer(name, {"CLOCK_OFFSET_MS": str(offset_ms)})
    try:
        faults.confirm(scenario.wait_for_assignment(name), "it had partitions")
        with scenario.under_load():
            scenario.issues_on_every_partition(time.monotonic(), 15)
    finally:
        scenario.stack.stop(name)


@row(37, "clock", "all our clocks jump by an hour in mid-sale, and back", seconds=25)
@pytest.mark.parametrize("by_ms", [_HOUR_MS, -_HOUR_MS], ids=["forward", "back"])
def test_clocks_jump(scenario: Scenario, faults: FaultInjector, by_ms: int) -> None:
    """Windows move with the clocks; what is accepted meanwhile is issued, and its status page works throughout."""
    coupon = coupon_open_by_wrong_clock(scenario, by_ms)
    with scenario.under_load():
        with faults.clocks_shifted(by_ms):
            answer = scenario.system.request_until_answered(coupon, 1)
            faults.confirm(answer.status_code == 202, f"{answer.status_code} by a shifted clock")
            scenario.issues_on_every_partition(time.monotonic(), 15)
        refused = scenario.system.request_issuance(coupon, 2)
        scenario.check(refused is not None and refused.status_code == 409, "the clock is right again")
        scenario.check(
            scenario.system.wait_until_final(answer.json()["request_id"])["state"] == "issued", "it was accepted"
        )
        scenario.issues_on_every_partition(time.monotonic(), 15)


def coupon_open_by_wrong_clock(scenario: Scenario, by_ms: int) -> int:
    """Make a coupon that is open only by a clock that is wrong by `by_ms`.

    It opens in half an hour (clock ahead) or closed half an hour ago (clock behind).
    """
    now = datetime.now(UTC)
    if by_ms > 0:
        return scenario.system.make_coupon(5, opens_at=(now + timedelta(minutes=30)).isoformat())
    return scenario.system.make_coupon(5, closes_at=(now - timedelta(minutes=30)).isoformat())
