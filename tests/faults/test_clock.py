"""Clocks that are an hour wrong: windows are judged by the gate's, and nothing that was accepted depends on one."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from stack import ports
from stack.parts import processes
from tests.faults.guests import guest
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene
from tests.system import told

_HOUR_MS = 3_600_000


@row(37, "clock", "an API's clock is an hour wrong", seconds=20)
@pytest.mark.parametrize("offset_ms", [_HOUR_MS, -_HOUR_MS], ids=["fast", "slow"])
def test_an_apis_clock_is_wrong(scene: Scene, hands: Hands, offset_ms: int) -> None:
    """It opens and closes coupons by its own clock; what it accepts is issued, whatever the others' clocks say."""
    mine = open_only_by_a_wrong_clock(scene, offset_ms)
    with scene.users(), another_api(scene, offset_ms) as url:
        answer = httpx.post(f"{url}/coupons/{mine}/issuances", json={"user_id": 1}, timeout=10)
        scene.system.history.append(told(1, mine, answer))
        hands.bitten(answer.status_code == 202, f"{answer.status_code} by a wrong clock")
        refused = scene.system.ask(mine, 2)
        scene.demand(refused is not None and refused.status_code == 409, "the other API's clock is right")
        scene.demand(scene.system.final(answer.json()["request_id"])["state"] == "issued", "it was accepted")


@row(37, "clock", "an issuer's clock is an hour wrong", seconds=25)
@pytest.mark.parametrize("offset_ms", [_HOUR_MS, -_HOUR_MS], ids=["fast", "slow"])
def test_an_issuers_clock_is_wrong(scene: Scene, hands: Hands, offset_ms: int) -> None:
    """Order and windows do not go by it."""
    name = f"issuer-{'fast' if offset_ms > 0 else 'slow'}"
    scene.stack.add_issuer(name, {"CLOCK_OFFSET_MS": str(offset_ms)})
    try:
        hands.bitten(scene.had_partitions(name), "it had partitions")
        with scene.users():
            scene.issues_everywhere(time.monotonic(), 15)
    finally:
        scene.stack.stop(name)


@row(37, "clock", "all our clocks jump by an hour in mid-sale, and back", seconds=25)
@pytest.mark.parametrize("by_ms", [_HOUR_MS, -_HOUR_MS], ids=["forward", "back"])
def test_clocks_jump(scene: Scene, hands: Hands, by_ms: int) -> None:
    """Windows move with them; what is accepted meanwhile is issued, and pages tell of it before and after."""
    mine = open_only_by_a_wrong_clock(scene, by_ms)
    with scene.users():
        with hands.clocks_jump(by_ms):
            answer = scene.system.press(mine, 1)
            hands.bitten(answer.status_code == 202, f"{answer.status_code} by a clock that jumped")
            scene.issues_everywhere(time.monotonic(), 15)
        refused = scene.system.ask(mine, 2)
        scene.demand(refused is not None and refused.status_code == 409, "the clock is right again")
        scene.demand(scene.system.final(answer.json()["request_id"])["state"] == "issued", "it was accepted")
        scene.issues_everywhere(time.monotonic(), 15)


def open_only_by_a_wrong_clock(scene: Scene, by_ms: int) -> int:
    """A coupon that opens in half an hour, or closed half an hour ago, whichever a clock so far off takes for open."""
    now = datetime.now(UTC)
    if by_ms > 0:
        return scene.system.make_coupon(5, opens_at=(now + timedelta(minutes=30)).isoformat())
    return scene.system.make_coupon(5, closes_at=(now - timedelta(minutes=30)).isoformat())


@contextmanager
def another_api(scene: Scene, offset_ms: int) -> Iterator[str]:
    """A second API with a clock of its own; its address."""
    port = ports.any_free()
    environment = {**scene.stack.environment, "API_PORT": str(port), "CLOCK_OFFSET_MS": str(offset_ms)}
    with guest(scene.stack, replace(processes.api(environment), name=f"api{offset_ms:+}")):
        yield f"http://127.0.0.1:{port}"
