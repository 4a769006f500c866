"""Notices and dead letters on their way out: the receiver misbehaves, the sender dies between any two lines."""

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from service.crash_points import CrashPoint
from tests.faults import manners
from tests.faults.hands import Hands
from tests.faults.ledger import Invariant
from tests.faults.rows import row
from tests.faults.scene import Scene
from tests.faults.tasks import Tasks
from workers.queues import Task

#: promised: so long a receiver can keep a task, whatever it does
_TASK_SECONDS = 3.0
_SPOILT = 3
_MANNERS = (
    manners.error,
    manners.too_many,
    manners.redirect,
    manners.hang,
    manners.slow,
    manners.dribble,
    manners.half,
    manners.reset,
)


@row(35, "receiver", "it misbehaves", seconds=20)
@pytest.mark.parametrize("manner", _MANNERS, ids=lambda manner: manner.__name__)
def test_the_receiver_misbehaves(scene: Scene, hands: Hands, manner: Callable[[BaseHTTPRequestHandler], None]) -> None:
    """Issuing does not wait for it; each task ends in time; every notice comes again, under its own id."""
    receiver = scene.system.receiver
    spoilt = receiver.spoilt
    with Tasks(scene.stack.celery_broker_url, Task.NOTIFY) as tasks, scene.users():
        receiver.manner = manner
        try:
            scene.system.eventually(lambda: receiver.spoilt >= spoilt + _SPOILT)
            scene.recovers(since=time.monotonic())
        finally:
            receiver.manner = None
        hands.bitten(receiver.spoilt >= spoilt + _SPOILT, f"{manner.__name__} was felt")
        scene.system.eventually(lambda: not scene.waiting_notices())
    longest = max(tasks.took)
    scene.ledger.check(Invariant.IN_TIME, longest <= _TASK_SECONDS, f"a task took {longest:.1f} s")


@row(36, "notices", "kill -9 between any two lines of a delivery", seconds=25)
@pytest.mark.parametrize(
    "point", [CrashPoint.NOTICES_CLAIMED, CrashPoint.NOTICES_POSTED, CrashPoint.GATE_CLAIMED, CrashPoint.GATE_SYNCED]
)
def test_a_sender_is_killed(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """What was claimed is claimed again after the lease; what was posted is posted again under its id."""
    with scene.users():
        hands.crash_at(point)


@row(36, "dead letters", "kill -9 between any two lines of forwarding and listening", seconds=25)
@pytest.mark.parametrize("point", [point for point in CrashPoint if point.startswith("letters.")])
def test_a_forwarder_is_killed(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """A dead letter may lie on its topic twice, and is one row."""
    coupon = scene.system.make_coupon(1)
    armed = hands.arm(point)
    with scene.users():
        receipt = scene.receipt(coupon, 1, fault="22012 9")
        hands.reached(armed)
        scene.demand(scene.system.final(receipt)["state"] == "dead", "it is dead")
    kept = "SELECT count(*) FROM dead_letters WHERE request_id = :id"
    scene.demand(scene.system.count(kept, id=receipt) == 1, "one row")
