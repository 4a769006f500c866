"""Rows in which the webhook receiver fails, or a process is killed while it sends notices or dead letters."""

import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from service.crash_points import CrashPoint
from tests.faults import receiver_faults
from tests.faults.fault_injection import FaultInjector
from tests.faults.invariants import Invariant
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.faults.task_durations import TaskDurations
from workers.queues import Task

#: promised: a receiver cannot keep a task running longer than this
_MAX_TASK_SECONDS = 3.0
_FAILED_POSTS = 3
_RECEIVER_FAULTS = (
    receiver_faults.error,
    receiver_faults.too_many,
    receiver_faults.redirect,
    receiver_faults.hang,
    receiver_faults.slow,
    receiver_faults.dribble,
    receiver_faults.half,
    receiver_faults.reset,
)


@row(35, "receiver", "it misbehaves", seconds=20)
@pytest.mark.parametrize("fault", _RECEIVER_FAULTS, ids=lambda fault: fault.__name__)
def test_the_receiver_misbehaves(
    scenario: Scenario, faults: FaultInjector, fault: Callable[[BaseHTTPRequestHandler], None]
) -> None:
    """Issuing does not wait for the receiver; each task ends in time; every notice is sent again under its own id."""
    receiver = scenario.system.receiver
    before = receiver.misbehaved
    with TaskDurations(scenario.stack.celery_broker_url, Task.NOTIFY) as durations, scenario.under_load():
        receiver.misbehave = fault
        try:
            scenario.system.eventually(lambda: receiver.misbehaved >= before + _FAILED_POSTS)
            scenario.recovers(since=time.monotonic())
        finally:
            receiver.misbehave = None
        faults.confirm(receiver.misbehaved >= before + _FAILED_POSTS, f"the receiver failed: {fault.__name__}")
        scenario.system.eventually(lambda: not scenario.count_outbox_entries())
    longest = max(durations.seconds)
    scenario.checker.check(Invariant.WITHIN_BOUND, longest <= _MAX_TASK_SECONDS, f"a task took {longest:.1f} s")


@row(36, "notices", "kill -9 between any two steps of a delivery", seconds=25)
@pytest.mark.parametrize(
    "point", [CrashPoint.NOTICES_CLAIMED, CrashPoint.NOTICES_POSTED, CrashPoint.GATE_CLAIMED, CrashPoint.GATE_SYNCED]
)
def test_a_sender_is_killed(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """A claimed notice is claimed again after its lease; a posted one is posted again under the same id."""
    with scenario.under_load():
        faults.crash_at(point)


@row(36, "dead letters", "kill -9 between any two steps of forwarding and listening", seconds=25)
@pytest.mark.parametrize("point", [point for point in CrashPoint if point.startswith("dead_letters.")])
def test_a_forwarder_is_killed(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """A dead letter may be on its topic twice, and has one row."""
    coupon = scenario.system.make_coupon(1)
    armed = faults.arm(point)
    with scenario.under_load():
        request_id = scenario.submit(coupon, 1, fault="22012 9")
        faults.wait_reached(armed)
        scenario.check(scenario.system.wait_until_final(request_id)["state"] == "dead", "the request is dead")
    rows = "SELECT count(*) FROM dead_letters WHERE request_id = :id"
    scenario.check(scenario.system.count(rows, id=request_id) == 1, "one row")
