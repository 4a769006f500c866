"""Experiments `burst`, `small_burst`, `eager_burst`, `to_be_burst`: as many requests at once as the coupon has.

The first three send the same burst to this project and to the AS-IS system, with three settings of its scheduler.
The last one puts the TO-BE consumer behind this project's API.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.comparators.as_is_queue import register_coupon
from benchmarks.environment import Environment, start_environment
from benchmarks.experiments.common import (
    Experiment,
    burst,
    check_as_is_refusals,
    start_as_is,
    start_to_be,
    wait_for_phase,
)
from benchmarks.figures import Figures, in_milliseconds
from benchmarks.load.http_load import LoadResult
from service.stream.topics import Topic

_WARM_UP_REQUESTS = 500


class Size(NamedTuple):
    """Requests of a burst, the scheduler's period, and its chunk per coupon and run: 0 takes the whole queue."""

    requests: int
    period_seconds: float
    chunk: int


class ToBeSize(NamedTuple):
    """Requests of each burst on the TO-BE consumer."""

    small: int
    large: int


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the waits of both systems; each round's AS-IS burst begins at another phase of the scheduler's period."""
    with start_environment(directory) as environment:
        as_is = start_as_is(environment, size.period_seconds, size.chunk)
        api = environment.start_api()
        environment.start_issuer()
        api_burst(environment, api, _WARM_UP_REQUESTS)
        check_as_is_refusals(environment, as_is)
        for number in range(rounds):
            figures = api_burst(environment, api, size.requests)
            yield figures | as_is_burst(environment, as_is, size, phase=number, phases=rounds)


def measure_to_be(directory: Path, size: ToBeSize, rounds: int) -> Iterator[Figures]:
    """Yield the waits of a small and of a large burst that the TO-BE consumer issues."""
    with start_environment(directory) as environment:
        api = environment.start_api()
        start_to_be(environment, Topic.ISSUE_COUPON)
        api_burst(environment, api, _WARM_UP_REQUESTS)
        for _ in range(rounds):
            figures = api_burst(environment, api, size.small, "to_be_small")
            yield figures | api_burst(environment, api, size.large, "to_be_large")


def api_burst(environment: Environment, port: int, requests: int, name: str = "ours") -> dict[str, float]:
    """Return the waits of a burst on this project's API, with any consumer behind it."""
    environment.clear_decisions()
    coupon_id = environment.create_coupon(requests)
    return _waits(environment, coupon_id, burst(environment, port, coupon_id, requests), name)


def as_is_burst(environment: Environment, port: int, size: Size, phase: int, phases: int) -> dict[str, float]:
    """Return the waits of a burst on the AS-IS system that begins at a phase of its period."""
    environment.clear_decisions()
    coupon_id = environment.create_coupon(size.requests)
    register_coupon(environment.stack.redis_url, coupon_id, size.requests)
    wait_for_phase(size.period_seconds, phase, phases)
    return _waits(environment, coupon_id, burst(environment, port, coupon_id, size.requests), "as_is")


def _waits(environment: Environment, coupon_id: int, result: LoadResult, name: str) -> dict[str, float]:
    """Return waits from when each request was sent, as in the report's chart, and from the start of the burst."""
    waits = decisions.waits(environment, [coupon_id], 1, result)
    from_burst = [wait + due - result.began for wait, due in zip(waits, result.due, strict=True)]
    return {
        **in_milliseconds(waits, f"{name}_wait"),
        **in_milliseconds(from_burst, f"{name}_from_burst"),
        f"{name}_accepted_per_second": result.rate_after(0),
        f"{name}_generator_cpu_share": result.cpu_share,
    }


BURST = Experiment(
    name="burst",
    description="A burst of 10,000 on one coupon: the scheduler with the whole queue every 5 s, beside this project.",
    measure=measure,
    full=Size(10_000, 5.0, 0),
    quick=Size(10_000, 5.0, 0),
    rounds=5,
)
SMALL_BURST = Experiment(
    name="small_burst",
    description="A burst of 1,000 on one coupon: the scheduler with a chunk of 100 every 5 s, beside this project.",
    measure=measure,
    full=Size(1_000, 5.0, 100),
    quick=None,
    rounds=3,
)
EAGER_BURST = Experiment(
    name="eager_burst",
    description="A burst of 10,000 on one coupon: the scheduler with the whole queue every 0.1 s, beside this project.",
    measure=measure,
    full=Size(10_000, 0.1, 0),
    quick=None,
    rounds=3,
)
TO_BE_BURST = Experiment(
    name="to_be_burst",
    description="Bursts of 1,000 and 10,000 on this project's API, issued message by message by the TO-BE consumer.",
    measure=measure_to_be,
    full=ToBeSize(1_000, 10_000),
    quick=None,
    rounds=3,
)
