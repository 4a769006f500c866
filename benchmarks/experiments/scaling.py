"""Experiments `processes` and `issuers`: what a second API process and a second issuer add."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.checkout import WORK_TREE, Checkout
from benchmarks.environment import WEBHOOK, Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, WARM_UP_SECONDS, Experiment, accept_without_issuing, warm_up
from benchmarks.figures import Figures, prefixed
from benchmarks.load.coupons import create_coupon
from benchmarks.load.http_load import run_closed_model
from benchmarks.load.records import append, build_records, shuffled_users

_COUPONS = 12
_FIRST, _SECOND = "issuer-0", "issuer-1"
_SERVERS = ("kafka", "postgres", "valkey")


class ProcessesSize(NamedTuple):
    """Seconds of each measurement."""

    seconds: float


class IssuersSize(NamedTuple):
    """Requests of a round, over all coupons."""

    requests: int


def measure_processes(
    directory: Path, size: ProcessesSize, rounds: int, checkout: Checkout = WORK_TREE
) -> Iterator[Figures]:
    """Yield what one API process accepts, then two: without and with the issuer running; 256 connections.

    The share of a core that each part uses while requests are issued shows which one is the limit. An API process and
    the issuer run Python code in one thread at a time, so neither uses much more than one core.
    """
    with start_environment(directory, checkout=checkout) as environment:
        apis = {"one": environment.start_api("api"), "two": environment.start_api("api-two", API_PROCESSES="2")}
        parts = {"one": ("api", _FIRST, *_SERVERS), "two": ("api-two", _FIRST, *_SERVERS)}
        environment.start_issuer()
        for port in apis.values():
            accept_without_issuing(environment, port, 1)
        for _ in range(rounds):
            figures: dict[str, float] = {}
            for name, port in apis.items():
                result = accept_without_issuing(environment, port, size.seconds)
                figures[f"{name}_per_second"] = result.rate_after(WARM_UP_SECONDS)
                figures[f"{name}_generator_share"] = result.cpu_share
                issuing = accept_while_issuing(environment, port, parts[name], size.seconds)
                figures |= prefixed(f"{name}_issuing", issuing)
            yield figures


def accept_while_issuing(environment: Environment, port: int, parts: Sequence[str], seconds: float) -> dict[str, float]:
    """Return accepted requests per second while they are issued, CPU time per request and cores in use, by part."""
    coupon_id = create_coupon(port, UNLIMITED)
    with environment.cpu_time(parts) as until_issued:
        with environment.cpu_time(parts) as under_load:
            result = run_closed_model(port, coupon_id, seconds)
        decisions.wait_for_count(environment, coupon_id, len(result.due))
    decisions.check_issued(environment, coupon_id, len(result.due))
    figures = {
        "per_second": result.rate_after(WARM_UP_SECONDS),
        **until_issued.figures(len(result.due)),
        **under_load.cores(result.wall_seconds),
        "generator_cores": result.cpu_share,
    }
    return {name.replace("api_two", "api"): value for name, value in figures.items()}


def measure_issuers(directory: Path, size: IssuersSize, rounds: int) -> Iterator[Figures]:
    """Yield the issue rates of one issuer and of two, and CPU time per request by part.

    The rounds of one issuer come first. In alternation, the second issuer's partitions would have to be reassigned in
    each round.
    """
    with start_environment(directory, WEBHOOK) as environment:
        environment.start_issuer(_FIRST)
        warm_up(environment, _FIRST, size.requests // _COUPONS)
        alone = [drain_all(environment, [_FIRST], size.requests) for _ in range(rounds)]
        environment.start_issuer(_SECOND)
        warm_up(environment, _SECOND)
        both = [drain_all(environment, [_FIRST, _SECOND], size.requests) for _ in range(rounds)]
    for one, two in zip(alone, both, strict=True):
        yield prefixed("one", one) | prefixed("two", two)


def drain_all(environment: Environment, issuers: Sequence[str], requests: int) -> dict[str, float]:
    """Drain a backlog that is spread over coupons of every partition; return its rate and CPU time per request."""
    quantity = requests // _COUPONS
    coupon_ids = [environment.create_coupon(quantity) for _ in range(_COUPONS)]
    records = [list(build_records(coupon_id, shuffled_users(quantity))) for coupon_id in coupon_ids]
    interleaved = [record for one_of_each in zip(*records, strict=True) for record in one_of_each]
    environment.clear_decisions()
    with environment.cpu_time((*issuers, *_SERVERS)) as cpu:
        with ExitStack() as suspended:
            for issuer in issuers:
                suspended.enter_context(environment.suspended(issuer))
            append(environment.stack.kafka_bootstrap_servers, interleaved)
        for coupon_id in coupon_ids:
            decisions.wait_for_count(environment, coupon_id, quantity)
    for coupon_id in coupon_ids:
        decisions.check_issued(environment, coupon_id, quantity)
    return {"per_second": decisions.issue_rate(environment, *coupon_ids), **cpu.figures(_COUPONS * quantity)}


PROCESSES = Experiment(
    name="processes",
    description="One API process and two that share a port: what the second one adds to accepted requests.",
    measure=measure_processes,
    full=ProcessesSize(4.0),
    quick=None,
    rounds=3,
    any_commit=True,
)
ISSUERS = Experiment(
    name="issuers",
    description="One issuer and two of them on all partitions: what the second one adds.",
    measure=measure_issuers,
    full=IssuersSize(120_000),
    quick=None,
    rounds=3,
)
