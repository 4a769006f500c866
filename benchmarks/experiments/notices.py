"""Experiment `notices`: what notices cost the issuer, and whether a worker delivers them as fast as they arise.

The issuer's settings differ, so there are three environments: without notices, with outbox rows only, and with a worker
that delivers. They drain in turn, each round in another order.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.comparators.webhook_receiver import run_receiver
from benchmarks.environment import WEBHOOK, Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, Experiment, drain, warm_up
from benchmarks.figures import Figures
from benchmarks.load.records import append_at_rate, build_records, shuffled_users

_PENDING = "SELECT coalesce(sum(last_offset - first_offset + 1), 0)::bigint FROM outbox WHERE kind = 'notify'"
_DELIVERY_TIMEOUT_SECONDS = 300.0

Variant = Callable[[int], dict[str, float]]
"""Drains so many requests in one of the environments and returns the figures."""


class Size(NamedTuple):
    """Requests of a drain; then decisions per second and seconds at a constant rate."""

    requests: int
    rate: float
    seconds: float


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the figures of each round."""
    with (
        run_receiver() as url,
        _issuing(directory / "without", {}) as without,
        _issuing(directory / "outbox", WEBHOOK) as outbox,
        _issuing(directory / "delivering", WEBHOOK | {"WEBHOOK_URL": url}) as delivering,
    ):
        delivering.start_worker()
        variants: list[Variant] = [
            partial(_drain, without, "without"),
            partial(_drain, outbox, "outbox"),
            partial(_drain_and_deliver, delivering),
        ]

        def run_round(number: int) -> dict[str, float]:
            # in rotation: the first of a round runs beside the last one's after-effects
            first = number % len(variants)
            order = (*variants[first:], *variants[:first])
            return {name: value for variant in order for name, value in variant(size.requests).items()}

        run_round(-1)
        drained = [run_round(number) for number in range(rounds)]
        yield from (figures | _deliver_at_rate(delivering, size) for figures in drained)


@contextmanager
def _issuing(directory: Path, variables: dict[str, str]) -> Iterator[Environment]:
    with start_environment(directory, variables) as environment:
        environment.start_issuer()
        warm_up(environment, "issuer-0")
        yield environment


def _drain(environment: Environment, name: str, requests: int) -> dict[str, float]:
    coupon_id = environment.create_coupon(requests)
    records = list(build_records(coupon_id, shuffled_users(requests)))
    environment.clear_decisions()
    drain(environment, "issuer-0", coupon_id, records)
    return {f"{name}_per_second": decisions.issue_rate(environment, coupon_id)}


def _drain_and_deliver(environment: Environment, requests: int) -> dict[str, float]:
    """Return the drain's rate, the notices pending at its end, and the rate at which those are delivered."""
    rate, pending = _drain(environment, "delivering", requests), environment.query_int(_PENDING)
    began = time.monotonic()
    decisions.wait_for_zero(environment, "all notices delivered", _PENDING, _DELIVERY_TIMEOUT_SECONDS)
    seconds = time.monotonic() - began
    return {**rate, "notices_left": pending, "notices_left_per_second": pending / max(seconds, 0.05)}


def _deliver_at_rate(environment: Environment, size: Size) -> dict[str, float]:
    """Return pending notices at half time and at the end, while requests are issued at a constant rate."""
    coupon_id, half = environment.create_coupon(UNLIMITED), size.seconds / 2
    pending = []
    servers = environment.stack.kafka_bootstrap_servers
    with append_at_rate(servers, coupon_id, size.rate, size.seconds + half) as due_times:
        began = time.monotonic()
        for _ in range(2):
            time.sleep(half)
            pending.append(environment.query_int(_PENDING))
        rate = environment.issued_count(coupon_id) / (time.monotonic() - began)
    decisions.wait_for_issued(environment, coupon_id, len(due_times))
    decisions.wait_for_zero(environment, "all notices delivered", _PENDING, _DELIVERY_TIMEOUT_SECONDS)
    return {"paced_per_second": rate, "paced_waiting_at_half": pending[0], "paced_waiting_at_end": pending[1]}


EXPERIMENT = Experiment(
    name="notices",
    description="Cost of notices for the issuer: without notices, with outbox rows, and with a worker that delivers.",
    measure=measure,
    full=Size(100_000, 3_000, 10),
    quick=None,
    rounds=3,
)
