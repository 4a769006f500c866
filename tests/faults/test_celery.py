"""Tests in which Celery's children, worker, beat or broker fail.

The work is stored in database rows; messages only announce it.
"""

import re
import subprocess
import sys
import time

import pytest

from service.crash_points import CrashPoint
from service.log_events import LogEvent
from tests.faults.extra_processes import EXTRA_WORKER, extra_worker
from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from workers.queues import Task

#: promised: within this time the work of a killed worker resumes
_RESUMED_SECONDS = 10.0
#: the line that a worker logs for each retry task that runs
_RETRY_STARTED = re.compile(rf"{re.escape(LogEvent.TASK_STARTED)} .*task={re.escape(Task.RETRY)}")
#: sends the message of one retry thirty times; arguments: log id, partition, offset
_SEND_REPEATEDLY = """
import sys
from service.domain.request import LogPosition
from workers import messages
from workers.queues import MessageSource
from workers.issuer.after_commit import build_celery_client
log_id, partition, offset = map(int, sys.argv[1:])
celery = build_celery_client()
for _ in range(30):
    messages.send_retry(celery, log_id, [LogPosition(partition, offset)], 1, source=MessageSource.SWEEP)
"""


@row(30, "Celery", "kill -9 of a child at every step of a retry", seconds=25)
def test_a_child_is_killed(scenario: Scenario, faults: FaultInjector) -> None:
    """Attempts are counted in the row: none is counted twice, none is lost."""
    coupon = scenario.system.make_coupon(10)
    with scenario.under_load():
        for user, point in enumerate(
            (CrashPoint.RETRY_TAKEN, CrashPoint.RETRY_WRITTEN, CrashPoint.RETRY_COMMITTED), start=1
        ):
            armed = faults.arm(point)
            request_id = scenario.submit(coupon, user, fault="22012 1")
            faults.wait_reached(armed)
            page = scenario.system.wait_until_final(request_id)
            scenario.check((page["state"], page["attempts"]) == ("issued", 2), page)


@row(31, "Celery", "kill -9 of the worker that holds a retry or notices, with a second worker running", seconds=30)
@pytest.mark.parametrize("point", [CrashPoint.RETRY_TAKEN, CrashPoint.RETRY_COMMITTED, CrashPoint.NOTICES_CLAIMED])
def test_the_worker_is_killed(scenario: Scenario, faults: FaultInjector, point: CrashPoint) -> None:
    """The other worker resumes the work within ten seconds."""
    coupon = scenario.system.make_coupon(10)
    with extra_worker(scenario):
        armed = faults.arm(point, "stop")
        request_id = scenario.submit(coupon, 1, fault="22012 1" if "retry" in point else None)
        faults.wait_reached(armed)
        faults.kill(faults.find_with_frozen_child("worker", EXTRA_WORKER))
        since = time.monotonic()
        page = scenario.system.wait_until_final(request_id)
        scenario.system.eventually(lambda: scenario.system.receiver.states(request_id))
        scenario.check_in_time(since, _RESUMED_SECONDS, page["state"] == "issued", "its work was done")


@row(32, "Celery", "its broker is killed at the moment of a retry", seconds=25)
def test_no_broker_at_retry_time(scenario: Scenario, faults: FaultInjector) -> None:
    """Celery cannot publish the retry and drops the task; the sweep finds the row and sends the message again."""
    coupon = scenario.system.make_coupon(10)
    request_id = scenario.submit(coupon, 1, fault="22012 2")
    freeze_after_first_retry(scenario, faults, request_id)
    with faults.unavailable("valkey"):
        scenario.stack.thaw("worker")
        scenario.system.eventually(lambda: "OperationalError" in scenario.process_log("worker"))
        faults.confirm("OperationalError" in scenario.process_log("worker"), "the retry was not published")
    since = time.monotonic()
    page = scenario.system.wait_until_final(request_id)
    scenario.check_in_time(since, 2 * _RESUMED_SECONDS, (page["state"], page["attempts"]) == ("issued", 3), page)


def freeze_after_first_retry(scenario: Scenario, faults: FaultInjector, request_id: str) -> None:
    """Freeze a child that has committed this request's first retry; thaw children that committed something else."""
    retries = "SELECT attempts - 1 FROM requests WHERE request_id = :id"
    while True:
        faults.crash_at(CrashPoint.RETRY_COMMITTED, "stop")
        if scenario.system.count(retries, id=request_id):
            return
        scenario.stack.thaw("worker")


@row(34, "Celery", "a retry is delivered thirty times at once, to two workers", seconds=25)
def test_a_message_is_delivered_many_times(scenario: Scenario, faults: FaultInjector) -> None:
    """As after a visibility timeout shorter than the task: one attempt is made, the other deliveries find no work."""
    coupon = scenario.system.make_coupon(10)
    with extra_worker(scenario):
        request_id = scenario.submit(coupon, 1, fault="22012 2")
        command = [sys.executable, "-c", _SEND_REPEATEDLY, *map(str, scenario.record_location(request_id))]
        subprocess.run(command, env=scenario.stack.environment, check=True, timeout=60)
        page = scenario.system.wait_until_final(request_id)
    runs = sum(len(_RETRY_STARTED.findall(scenario.process_log(name))) for name in ("worker", EXTRA_WORKER))
    faults.confirm(runs >= 30, f"{runs} tasks ran")
    scenario.check((page["state"], page["attempts"]) == ("issued", 3), page)


@row(38, "Celery", "SIGTERM of worker and beat under load", seconds=30)
def test_sigterm_under_load(scenario: Scenario, faults: FaultInjector) -> None:
    """Running tasks finish; the other messages go back to their queue."""
    with scenario.under_load():
        for name in ("beat", "worker"):
            faults.wait_ended(faults.terminate(name))
        for name in ("beat", "worker"):
            scenario.stack.wait_up(name)


@row(30, "Celery", "beat is killed and the messages are lost", seconds=25)
def test_beat_is_unavailable(scenario: Scenario, faults: FaultInjector) -> None:
    """The issuer's monitor finds rows whose messages were lost."""
    coupon = scenario.system.make_coupon(10)
    with faults.unavailable("beat"):
        armed = faults.arm(CrashPoint.RETRY_TAKEN)
        request_id = scenario.submit(coupon, 1, fault="22012 1")
        faults.wait_reached(armed)
        scenario.system.redis.flushall()
        page = scenario.system.wait_until_final(request_id)
        scenario.check(page["state"] == "issued", page)
