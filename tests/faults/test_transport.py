"""Celery's broker is exchangeable: the same sale with requests that fail, over Redis and over Kafka alone."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import task_sources
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene
from tests.system import System

_USERS = 300
#: of twenty users one fails once, one twice, one for ever
_FAULTS = {0: "22012 1", 1: "22012 2", 2: "22012 9"}
_ATTEMPTS = {0: 2, 1: 3, 2: 3}


@pytest.fixture(params=["_started", "_started_over_kafka"], ids=["Redis", "Kafka"])
def ground(request: pytest.FixtureRequest) -> System:
    """What the rows of this module run on: everything, with Celery's messages in Redis or in Kafka."""
    system: System = request.getfixturevalue(request.param)
    return system


@row(42, "Celery's broker", "a sale with failing requests over", seconds=25)
@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "worker killed"])
def test_a_sale_ends_the_same_over_any_broker(
    scene: Scene, hands: Hands, record_property: Callable[[str, object], None], *, killed: bool
) -> None:
    """Requests that fail once or twice are issued, those that always fail are dead, each user is told once."""
    coupon = scene.system.make_coupon(_USERS)
    before, began = task_sources.tasks(scene.system), time.monotonic()

    receipts = sale(scene, hands, coupon, killed=killed)
    scene.system.settle()

    ran = task_sources.told(task_sources.tasks(scene.system) - before)
    record_property("note", f"{time.monotonic() - began:.1f} s; {ran}")
    for user, receipt in receipts.items():
        page, forever = scene.system.standing(receipt), _FAULTS.get(user % 20) == "22012 9"
        ended = ("dead" if forever else "issued", _ATTEMPTS.get(user % 20, 1))
        scene.demand((page["state"], page["attempts"]) == ended, page)
        scene.demand(scene.system.receiver.told[receipt, page["state"]] == 1, page)


def sale(scene: Scene, hands: Hands, coupon: int, *, killed: bool) -> dict[int, str]:
    """Many users press, some of whose requests fail; the worker may be killed while they are retried. The receipts."""

    def press(user: int) -> tuple[int, str]:
        return user, scene.receipt(coupon, user, fault=_FAULTS.get(user % 20))

    with ThreadPoolExecutor(16) as pool:
        pressed = pool.map(press, range(1, _USERS + 1))
        if killed:
            scene.system.eventually(lambda: scene.system.count("SELECT count(*) FROM retries") > 10)
            hands.kill("worker")
            scene.stack.wait_up("worker")
        return dict(pressed)
