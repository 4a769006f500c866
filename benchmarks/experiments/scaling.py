"""Experiments `processes` and `issuers`: what a second API process and a second issuer add."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.environment import WEBHOOK, Environment, start_environment
from benchmarks.experiments.common import WARM_UP_SECONDS, Experiment, accept_without_issuing, warm_up
from benchmarks.figures import Figures
from benchmarks.load.records import append, build_records, shuffled_users

_COUPONS = 12
_FIRST, _SECOND = "issuer-0", "issuer-1"


class ProcessesSize(NamedTuple):
    """Seconds of each measurement."""

    seconds: float


class IssuersSize(NamedTuple):
    """Requests of a round, over all coupons."""

    requests: int


def measure_processes(directory: Path, size: ProcessesSize, rounds: int) -> Iterator[Figures]:
    """Yield accepted requests per second of one API process, then of two; 256 connections, issuer suspended."""
    with start_environment(directory) as environment:
        one = environment.start_api()
        two = environment.start_api("api-two", API_PROCESSES="2")
        environment.start_issuer()
        for port in (one, two):
            accept_without_issuing(environment, port, 1)
        for _ in range(rounds):
            figures = {}
            for name, port in (("one", one), ("two", two)):
                result = accept_without_issuing(environment, port, size.seconds)
                figures[f"{name}_per_second"] = result.rate_after(WARM_UP_SECONDS)
                figures[f"{name}_generator_share"] = result.cpu_share
            yield figures


def measure_issuers(directory: Path, size: IssuersSize, rounds: int) -> Iterator[Figures]:
    """Yield the issue rates of one issuer and of two.

    The rounds of one issuer come first. In alternation, the second issuer's partitions would have to be reassigned in
    each round.
    """
    with start_environment(directory, WEBHOOK) as environment:
        environment.start_issuer(_FIRST)
        warm_up(environment, _FIRST, size.requests // _COUPONS)
        alone = [issue_rate(environment, [_FIRST], size.requests) for _ in range(rounds)]
        environment.start_issuer(_SECOND)
        warm_up(environment, _SECOND)
        both = [issue_rate(environment, [_FIRST, _SECOND], size.requests) for _ in range(rounds)]
    for one, two in zip(alone, both, strict=True):
        yield {"one_per_second": one, "two_per_second": two}


def issue_rate(environment: Environment, issuers: Sequence[str], requests: int) -> float:
    """Return the rate at which these issuers drain a backlog that is spread over coupons of every partition."""
    quantity = requests // _COUPONS
    coupon_ids = [environment.create_coupon(quantity) for _ in range(_COUPONS)]
    records = [list(build_records(coupon_id, shuffled_users(quantity))) for coupon_id in coupon_ids]
    interleaved = [record for one_of_each in zip(*records, strict=True) for record in one_of_each]
    environment.clear_decisions()
    with ExitStack() as suspended:
        for issuer in issuers:
            suspended.enter_context(environment.suspended(issuer))
        append(environment.stack.kafka_bootstrap_servers, interleaved)
    for coupon_id in coupon_ids:
        decisions.wait_for_issued(environment, coupon_id, quantity)
    return decisions.issue_rate(environment, *coupon_ids)


PROCESSES = Experiment(
    name="processes",
    description="One API process and two that share a port: what the second one adds to accepted requests.",
    measure=measure_processes,
    full=ProcessesSize(4.0),
    quick=None,
    rounds=3,
)
ISSUERS = Experiment(
    name="issuers",
    description="One issuer and two of them on all partitions: what the second one adds.",
    measure=measure_issuers,
    full=IssuersSize(120_000),
    quick=None,
    rounds=3,
)
