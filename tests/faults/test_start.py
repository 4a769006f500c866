"""Processes that start before their parts, are started again one by one, or are only looked at."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from stack.plan import PARTS
from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene

_PROCESSES = ("api", "issuer", "worker", "beat")


@row(38, "deployment", "every process is started again in turn, and the migration, under load", seconds=45)
def test_rolling_restart(scene: Scene, hands: Hands) -> None:
    """Users press again while the API is away; everything else they do not notice."""
    with scene.users():
        migrate = [sys.executable, "-m", "service.cli", "migrate"]
        subprocess.run(migrate, env=scene.stack.environment, check=True, timeout=60)
        for name in _PROCESSES:
            since = time.monotonic()
            hands.stop(name)
            hands.start(name)
            scene.recovers(since)


@row(39, "deployment", "processes start first, then Valkey, PostgreSQL and Kafka", seconds=60, within=180)
def test_processes_start_first(scene: Scene, hands: Hands) -> None:
    """They wait for their parts, say so, and begin by themselves."""
    with scene.users(), ThreadPoolExecutor(len(_PROCESSES)) as aside:
        since = time.monotonic()
        for name in (*_PROCESSES, *PARTS):
            hands.stop(name)
        started = [aside.submit(hands.start, name) for name in _PROCESSES]
        scene.system.eventually(lambda: all("waiting: " in scene.log(name) for name in ("api", "issuer")))
        hands.bitten("waiting: " in scene.log("issuer"), "they wait")
        for name in reversed(PARTS):
            hands.start(name)
        for one in started:
            one.result()
        scene.recovers(since, within_seconds=90)


@row(40, "Flower", "kill -9", seconds=10)
def test_flower_is_killed(scene: Scene, hands: Hands) -> None:
    """A view is gone, and nothing else."""
    with scene.users():
        hands.kill("flower")
        scene.recovers(since=time.monotonic())
    scene.stack.wait_up("flower")
