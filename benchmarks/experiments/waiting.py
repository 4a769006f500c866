"""Experiment `waiting`: users who wait for a decision, by a stream of events or by asking again.

Each round measures a sale at a constant rate twice, alone and beside listeners and pollers, whose requests were
accepted before it. The issuer is suspended until the middle of the sale, so that all of them wait; then it decides the
backlog and the rest of the sale.

Then listeners alone wait behind a backlog that takes some seconds: the CPU time of the API for each event, and its
memory for each listener.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from benchmarks import ROOT, decisions
from benchmarks.environment import PARTITIONS, Environment, start_environment, wait_until
from benchmarks.experiments.common import UNLIMITED, Experiment
from benchmarks.figures import Figures, in_milliseconds, prefixed
from benchmarks.load.http_load import Plan, issuance_path, run_load
from benchmarks.load.records import append, build_records, shuffled_users
from benchmarks.load.waiting_clients import WaitingPlan, WaitingResult
from service.stream.partitioner import partition_of

_COMMAND = (sys.executable, "-m", "benchmarks.load.waiting_clients")
_FIRST_WAITING_USER = 1_000_001
_MAX_SECONDS = 90.0
_ISSUER = "issuer-0"


class Size(NamedTuple):
    """Requests of the sale and their rate, users who wait, and the records before the listeners that wait alone."""

    requests: int
    rate: float
    listeners: int
    pollers: int
    backlog: int


class WaitingUsers:
    """The process of the waiting users."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self._process = process
        self._folder = folder

    def follow(self) -> None:
        """Let the users follow their requests; return when every listener has its first event."""
        assert self._process.stdin
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        self.wait_for("following")

    def result(self) -> WaitingResult:
        """Wait until every user has a final state, and return what the users saw; raise AssertionError."""
        result = msgspec.json.decode(self.wait_for("result").read_bytes(), type=WaitingResult)
        assert result.without_final == 0, f"{result.without_final} users have no final state"
        assert result.with_growing_position == 0, f"{result.with_growing_position} users saw a position grow"
        assert result.positions > 0, "nobody saw a position"
        return result

    def wait_for(self, name: str) -> Path:
        """Return a file when the process has written it; raise AssertionError if the process ends without it."""
        file = self._folder / name
        wait_until(lambda: file.exists() or self._process.poll() is not None, f"the waiting users write {name}")
        assert file.exists(), "the waiting users have ended"
        return file


@contextmanager
def waiting_users(plan: WaitingPlan) -> Iterator[WaitingUsers]:
    """Start the process; the requests of its users are accepted when the block begins."""
    with TemporaryDirectory(prefix="coupons-waiting-") as directory:
        folder = Path(directory)
        (folder / "plan").write_bytes(msgspec.json.encode(plan))
        command = [*_COMMAND, str(folder / "plan"), directory]
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
            users = WaitingUsers(process, folder)
            try:
                users.wait_for("requested")
                yield users
            finally:
                process.terminate()


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the figures of each round."""
    with start_environment(directory) as environment:
        api = environment.start_api()
        environment.start_issuer()
        _sale(environment, api, size, are_followed=False)  # one-time costs
        before_mb = environment.resident_mb("api")
        for _ in range(rounds):
            without = _sale(environment, api, size, are_followed=False)
            beside = _sale(environment, api, size, are_followed=True)
            alone = _listeners_alone(environment, api, size, before_mb)
            yield prefixed("without", without) | prefixed("beside", beside) | alone


def _sale(environment: Environment, api: int, size: Size, *, are_followed: bool) -> dict[str, float]:
    """Return response times of the sale and the API's CPU time; without users who follow, the requests are the same."""
    environment.clear_decisions()
    coupon_id = environment.create_coupon(UNLIMITED)
    plan = WaitingPlan(api, coupon_id, _FIRST_WAITING_USER, size.listeners, size.pollers, _MAX_SECONDS)
    sale = Plan(api, [issuance_path(coupon_id)], 1, size.requests, rate=size.rate)
    with (
        ThreadPoolExecutor(1) as pool,
        environment.cpu_time(("api",)) as cpu,
        environment.suspended(_ISSUER),
        waiting_users(plan) as users,
    ):
        if are_followed:
            users.follow()
        running = pool.submit(run_load, sale)
        time.sleep(size.requests / size.rate / 2)
        environment.stack.thaw(_ISSUER)
        result = running.result()
        seen = _seen(users.result()) if are_followed else {}
    decisions.wait_for_issued(environment, coupon_id, size.requests + size.listeners + size.pollers)
    responses = in_milliseconds(result.latencies, "response")
    return responses | seen | {"api_cpu_us": cpu.figures(size.requests)["api_cpu_us"]}


def _seen(result: WaitingResult) -> dict[str, float]:
    return {
        "events": sum(result.events.values()),
        "polls": sum(result.polls.values()),
        "polls_unchanged": result.polls.get(304, 0),
    }


def _listeners_alone(environment: Environment, api: int, size: Size, before_mb: float) -> dict[str, float]:
    """Return CPU time for each event, and memory for each listener.

    before_mb: the API's memory before there was any listener. It keeps what it took for the first ones.
    """
    environment.clear_decisions()
    first, second = _coupons_of_one_partition(environment)
    plan = WaitingPlan(api, second, _FIRST_WAITING_USER, size.listeners, 0, _MAX_SECONDS)
    records = list(build_records(first, shuffled_users(size.backlog)))
    with environment.suspended(_ISSUER):
        append(environment.stack.kafka_bootstrap_servers, records)
        with waiting_users(plan) as users:
            users.follow()
            grown_mb = environment.resident_mb("api") - before_mb
            with environment.cpu_time(("api",)) as cpu:
                environment.stack.thaw(_ISSUER)
                seen = users.result()
    decisions.wait_for_issued(environment, first, size.backlog)
    events = sum(seen.events.values()) - size.listeners  # the first one of each was before
    return {
        "event_api_cpu_us": cpu.seconds["api"] / events * 1e6,
        "events_per_listener": events / size.listeners,
        "listener_api_kb": grown_mb * 1000 / size.listeners,
    }


def _coupons_of_one_partition(environment: Environment) -> tuple[int, int]:
    first = environment.create_coupon(UNLIMITED)
    while True:
        second = environment.create_coupon(UNLIMITED)
        if partition_of(second, PARTITIONS) == partition_of(first, PARTITIONS):
            return first, second


EXPERIMENT = Experiment(
    name="waiting",
    description="A sale beside users who wait, by streams of events and by asking again: response times, CPU, memory.",
    measure=measure,
    full=Size(10_000, 1_000, 2_000, 2_000, 300_000),
    quick=Size(5_000, 2_000, 500, 500, 100_000),
    rounds=3,
)
