"""Celery's children, worker and beat die, freeze and lose their broker: rows are the truth, messages are hints."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from service.crash_points import CrashPoint
from stack import logs
from stack.parts import processes
from tests.faults.guests import guest
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene
from workers.queues import Task

#: promised: work that a killed worker held goes on by then
_RESUMED_SECONDS = 10.0
#: what a worker says of each task that runs
_RUNS = f"task={Task.RETRY.value}"
_HINTS = """
import sys
from service.domain.request import Place
from workers import hints
from workers.queues import Hint
from workers.issuer.after_commit import celery_producer
log, partition, offset = map(int, sys.argv[1:])
for _ in range(30):
    hints.retry(celery_producer(), log, [Place(partition, offset)], 1, hint=Hint.SWEEP)
"""


@row(30, "Celery", "kill -9 of a child at every line of a retry", seconds=25)
def test_a_child_is_killed(scene: Scene, hands: Hands) -> None:
    """Attempts are counted in the row: none is spent twice, none is forgotten."""
    coupon = scene.system.make_coupon(10)
    with scene.users():
        for user, point in enumerate(
            (CrashPoint.RETRY_TAKEN, CrashPoint.RETRY_WRITTEN, CrashPoint.RETRY_COMMITTED), start=1
        ):
            armed = hands.arm(point)
            receipt = scene.receipt(coupon, user, fault="22012 1")
            hands.reached(armed)
            page = scene.system.final(receipt)
            scene.demand((page["state"], page["attempts"]) == ("issued", 2), page)


@row(31, "Celery", "kill -9 of the worker that holds a retry or notices, another running", seconds=30)
@pytest.mark.parametrize("point", [CrashPoint.RETRY_TAKEN, CrashPoint.RETRY_COMMITTED, CrashPoint.NOTICES_CLAIMED])
def test_the_worker_is_killed(scene: Scene, hands: Hands, point: CrashPoint) -> None:
    """Work goes on within ten seconds."""
    coupon = scene.system.make_coupon(10)
    with another_worker(scene):
        armed = hands.arm(point, "stop")
        receipt = scene.receipt(coupon, 1, fault="22012 1" if "retry" in point else None)
        hands.reached(armed)
        hands.kill(hands.whose_child_is_frozen("worker", "another"))
        since = time.monotonic()
        page = scene.system.final(receipt)
        scene.system.eventually(lambda: scene.system.receiver.states(receipt))
        scene.in_time(since, _RESUMED_SECONDS, page["state"] == "issued", "its work was done")


@row(32, "Celery", "its broker dies at the moment of a retry", seconds=25)
def test_no_broker_at_retry_time(scene: Scene, hands: Hands) -> None:
    """The retry cannot be published and Celery gives the task up; the row brings it back."""
    coupon = scene.system.make_coupon(10)
    receipt = scene.receipt(coupon, 1, fault="22012 2")
    frozen_after_a_retry(scene, hands, receipt)
    with hands.away("valkey"):
        scene.stack.thaw("worker")
        scene.system.eventually(lambda: "OperationalError" in scene.log("worker"))
        hands.bitten("OperationalError" in scene.log("worker"), "the retry was not published")
    since = time.monotonic()
    page = scene.system.final(receipt)
    scene.in_time(since, 2 * _RESUMED_SECONDS, (page["state"], page["attempts"]) == ("issued", 3), page)


def frozen_after_a_retry(scene: Scene, hands: Hands, request_id: str) -> None:
    """A child is frozen once it has committed this request's first retry; a late hint of a row before is let go."""
    retried = "SELECT attempts - 1 FROM requests WHERE request_id = :id"
    while True:
        hands.crash_at(CrashPoint.RETRY_COMMITTED, "stop")
        if scene.system.count(retried, id=request_id):
            return
        scene.stack.thaw("worker")


@row(34, "Celery", "a retry is delivered thirty times at once, to two workers", seconds=25)
def test_hints_come_many_times(scene: Scene, hands: Hands) -> None:
    """As after a visibility timeout shorter than the task: one attempt is made, the others find nothing to do."""
    coupon = scene.system.make_coupon(10)
    with another_worker(scene):
        receipt = scene.receipt(coupon, 1, fault="22012 2")
        command = [sys.executable, "-c", _HINTS, *map(str, scene.place(receipt))]
        subprocess.run(command, env=scene.stack.environment, check=True, timeout=60)
        page = scene.system.final(receipt)
    ran = scene.log("worker").count(_RUNS) + scene.log("another").count(_RUNS)
    hands.bitten(ran >= 30, f"{ran} tasks ran")
    scene.demand((page["state"], page["attempts"]) == ("issued", 3), page)


@row(38, "Celery", "SIGTERM of worker and beat under load", seconds=30)
def test_told_to_stop(scene: Scene, hands: Hands) -> None:
    """What runs is finished, what does not goes back to its queue."""
    with scene.users():
        for name in ("beat", "worker"):
            hands.gone(hands.terminate(name))
        for name in ("beat", "worker"):
            scene.stack.wait_up(name)


@row(30, "Celery", "beat is killed, and hints with it", seconds=25)
def test_beat_is_away(scene: Scene, hands: Hands) -> None:
    """The issuer's own watch finds rows whose hints were lost."""
    coupon = scene.system.make_coupon(10)
    with hands.away("beat"):
        armed = hands.arm(CrashPoint.RETRY_TAKEN)
        receipt = scene.receipt(coupon, 1, fault="22012 1")
        hands.reached(armed)
        scene.system.redis.flushall()
        page = scene.system.final(receipt)
        scene.demand(page["state"] == "issued", page)


@contextmanager
def another_worker(scene: Scene) -> Iterator[None]:
    """A second worker beside the first."""
    log = scene.stack.directory / "log" / "another.log"
    part = processes.worker(scene.stack.environment, log)
    argv = (*part.argv, "--hostname=another@%h")
    healthy = lambda: " ready." in logs.since_start(log)  # noqa: E731
    with guest(scene.stack, replace(part, name="another", argv=argv, healthy=healthy)):
        yield
