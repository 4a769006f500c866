"""Ten thousand requests whose issuing always fails: how long until all are given up, beside the policy's delays."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.experiments.acts import held_back, warm
from benchmarks.figures import Figures
from benchmarks.ground import prepared
from benchmarks.records import append, minted, shuffled
from service.domain.retry import ISSUE_RETRY_POLICY

_FAILS_ALWAYS = "22012 9"
_MOST_SECONDS = 120.0
_LOOK_SECONDS = 0.1
_DELAYS = sum(ISSUE_RETRY_POLICY.delay_after(made) or 0.0 for made in range(1, ISSUE_RETRY_POLICY.attempts))


class Size(NamedTuple):
    """Requests that fail."""

    requests: int


FULL, QUICK = Size(10_000), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Each round from the moment when the issuer may read them; one that does not end in time is the last one."""
    with prepared(directory, {"FAULT_INJECTION": "true"}) as ground:
        ground.issuer()
        ground.worker()
        warm(ground, "issuer-0")
        for _ in range(rounds):
            coupon_id = ground.coupon(size.requests)
            asked = list(minted(coupon_id, shuffled(size.requests), _FAILS_ALWAYS))
            ground.clear()
            with held_back(ground, "issuer-0"):
                append(ground.stack.kafka_bootstrap_servers, asked)
            began = time.monotonic()
            dead = f"SELECT {size.requests} - count(*) FROM requests WHERE state = 'dead' AND coupon_id = {coupon_id}"
            while (left := ground.count(dead)) and time.monotonic() < began + _MOST_SECONDS:
                time.sleep(_LOOK_SECONDS)
            yield {"retries_seconds": time.monotonic() - began, "retries_left": left, "policy_seconds": _DELAYS}
            if left:
                return
