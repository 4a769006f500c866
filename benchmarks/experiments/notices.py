"""What telling users costs the issuer: without notices, with their outbox rows, and with a worker that delivers."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import decided
from benchmarks.experiments.acts import WITHOUT_END, drain, warm
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, prepared
from benchmarks.pacing import paced
from benchmarks.records import minted, shuffled
from stack.parts.surroundings import ROOT

_WAITING = "SELECT coalesce(sum(last_offset - first_offset + 1), 0)::bigint FROM handoffs WHERE kind = 'notify'"
_SETTLED_SECONDS = 300.0


class Size(NamedTuple):
    """Requests of a drain; then so many decisions a second for so long."""

    requests: int
    rate: float
    seconds: float


FULL, QUICK = Size(60_000, 3_000, 10), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """A ground for each way, as the issuer's settings differ; round n is the n-th of each."""
    without = _drains(directory, {}, size, rounds)
    outbox = _drains(directory, WEBHOOK, size, rounds)
    with receiver() as url:
        delivering = _delivered(directory, WEBHOOK | {"WEBHOOK_URL": url}, size, rounds)
    for off, rows, told in zip(without, outbox, delivering, strict=True):
        yield {"without_per_second": off, "outbox_per_second": rows, **told}


def _drains(directory: Path, variables: dict[str, str], size: Size, rounds: int) -> list[float]:
    with prepared(directory, variables) as ground:
        ground.issuer()
        warm(ground, "issuer-0")
        return [_drain(ground, size.requests) for _ in range(rounds)]


def _delivered(directory: Path, variables: dict[str, str], size: Size, rounds: int) -> list[dict[str, float]]:
    with prepared(directory, variables) as ground:
        ground.issuer()
        ground.worker()
        warm(ground, "issuer-0")
        return [_deliver(ground, size.requests) | _keep_up(ground, size) for _ in range(rounds)]


def _drain(ground: Ground, requests: int) -> float:
    coupon_id = ground.coupon(requests)
    asked = list(minted(coupon_id, shuffled(requests)))
    ground.clear()
    drain(ground, "issuer-0", coupon_id, asked)
    return decided.rate(ground, coupon_id)


def _deliver(ground: Ground, requests: int) -> dict[str, float]:
    """The drain's rate, how many notices it left behind, and how fast those went afterwards."""
    rate, left, began = _drain(ground, requests), ground.count(_WAITING), time.monotonic()
    decided.await_none(ground, "all notices delivered", _WAITING, _SETTLED_SECONDS)
    seconds = time.monotonic() - began
    return {"delivering_per_second": rate, "notices_left": left, "notices_left_per_second": left / max(seconds, 0.05)}


def _keep_up(ground: Ground, size: Size) -> dict[str, float]:
    """Notices that wait after half of the time and at its end, while requests come at a constant rate."""
    coupon_id, half = ground.coupon(WITHOUT_END), size.seconds / 2
    waiting = []
    with paced(ground, coupon_id, size.rate, size.seconds + half):
        for _ in range(2):
            time.sleep(half)
            waiting.append(ground.count(_WAITING))
    decided.await_none(ground, "all notices delivered", _WAITING, _SETTLED_SECONDS)
    return {"paced_per_second": size.rate, "paced_waiting_at_half": waiting[0], "paced_waiting_at_end": waiting[1]}


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
