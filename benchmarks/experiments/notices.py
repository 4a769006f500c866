"""What telling users costs the issuer: without notices, with their outbox rows, and with a worker that delivers."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import decided
from benchmarks.experiments.acts import WITHOUT_END, drain, warm
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, prepared
from benchmarks.pacing import paced
from benchmarks.records import minted, shuffled
from stack.parts.surroundings import ROOT

_WAITING = "SELECT coalesce(sum(last_offset - first_offset + 1), 0)::bigint FROM outbox WHERE kind = 'notify'"
_SETTLED_SECONDS = 300.0

Way = Callable[[int], dict[str, float]]
"""Drains so many requests, with or without notices; the figures of it."""


class Size(NamedTuple):
    """Requests of a drain; then so many decisions a second for so long."""

    requests: int
    rate: float
    seconds: float


FULL, QUICK = Size(100_000, 3_000, 10), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """A ground for each way, as the issuer's settings differ; they drain in turns, each round in another order."""
    with (
        receiver() as url,
        _issuing(directory / "without", {}) as without,
        _issuing(directory / "outbox", WEBHOOK) as outbox,
        _issuing(directory / "delivering", WEBHOOK | {"WEBHOOK_URL": url}) as delivering,
    ):
        delivering.worker()
        ways = [partial(_drained, without, "without"), partial(_drained, outbox, "outbox"), partial(_told, delivering)]
        _in_turns(ways, size.requests, -1)
        drained = [_in_turns(ways, size.requests, number) for number in range(rounds)]
        yield from (each | _keep_up(delivering, size) for each in drained)


def _in_turns(ways: Sequence[Way], requests: int, number: int) -> dict[str, float]:
    """One round; whoever begins would have the last one's afterglow each time."""
    first = number % len(ways)
    return {name: value for way in (*ways[first:], *ways[:first]) for name, value in way(requests).items()}


@contextmanager
def _issuing(directory: Path, variables: dict[str, str]) -> Iterator[Ground]:
    with prepared(directory, variables) as ground:
        ground.issuer()
        warm(ground, "issuer-0")
        yield ground


def _drained(ground: Ground, name: str, requests: int) -> dict[str, float]:
    coupon_id = ground.coupon(requests)
    asked = list(minted(coupon_id, shuffled(requests)))
    ground.clear()
    drain(ground, "issuer-0", coupon_id, asked)
    return {f"{name}_per_second": decided.rate(ground, coupon_id)}


def _told(ground: Ground, requests: int) -> dict[str, float]:
    """The drain's rate, how many notices it left behind, and how fast those went afterwards."""
    rate, left, began = _drained(ground, "delivering", requests), ground.count(_WAITING), time.monotonic()
    decided.await_none(ground, "all notices delivered", _WAITING, _SETTLED_SECONDS)
    seconds = time.monotonic() - began
    return {**rate, "notices_left": left, "notices_left_per_second": left / max(seconds, 0.05)}


def _keep_up(ground: Ground, size: Size) -> dict[str, float]:
    """Notices that wait after half of the time and at its end, while requests are issued at a constant rate."""
    coupon_id, half = ground.coupon(WITHOUT_END), size.seconds / 2
    waiting = []
    with paced(ground, coupon_id, size.rate, size.seconds + half) as appended:
        began = time.monotonic()
        for _ in range(2):
            time.sleep(half)
            waiting.append(ground.count(_WAITING))
        rate = ground.issued(coupon_id) / (time.monotonic() - began)
    decided.await_issued(ground, coupon_id, len(appended))
    decided.await_none(ground, "all notices delivered", _WAITING, _SETTLED_SECONDS)
    return {"paced_per_second": rate, "paced_waiting_at_half": waiting[0], "paced_waiting_at_end": waiting[1]}


@contextmanager
def receiver() -> Iterator[str]:
    """A receiver that takes everything, in a process of its own; its URL."""
    command = (sys.executable, "-m", "benchmarks.comparators.receiver")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
