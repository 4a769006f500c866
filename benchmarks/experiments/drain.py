"""Experiment `drain`: the issue rate on a backlog of one coupon.

Each round measures the issuer, then PostgreSQL's limit with the same rows, then the TO-BE consumer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.environment import WEBHOOK, Environment, start_environment
from benchmarks.experiments.common import TO_BE_TOPIC, Experiment, drain, start_to_be, warm_up
from benchmarks.figures import Figures
from benchmarks.limits import insert
from benchmarks.load.records import append, build_records, shuffled_users

_PARTS = ("issuer-0", "postgres", "kafka", "valkey")


class Size(NamedTuple):
    """Requests of a round, for the issuer and for the TO-BE consumer."""

    issuer: int
    to_be: int


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the rates of each round."""
    with start_environment(directory, WEBHOOK) as environment:
        environment.start_issuer()
        start_to_be(environment)
        warm_up(environment, "issuer-0")
        check_to_be_refusals(environment)
        for _ in range(rounds):
            yield issuer_rate(environment, size.issuer) | to_be_rate(environment, size.to_be)


def issuer_rate(environment: Environment, requests: int) -> dict[str, float]:
    """Return the issuer's rate, CPU time per request by part, and PostgreSQL's limit for the rows that it wrote."""
    coupon_id = environment.create_coupon(requests)
    records = list(build_records(coupon_id, shuffled_users(requests)))
    environment.clear_decisions()
    with environment.cpu_time(_PARTS) as cpu:
        drain(environment, "issuer-0", coupon_id, records)
    figures = {"ours_per_second": decisions.issue_rate(environment, coupon_id), **cpu.figures(requests)}
    return figures | insert.measure(environment, coupon_id)


def to_be_rate(environment: Environment, requests: int) -> dict[str, float]:
    """Return the rate of the TO-BE consumer."""
    coupon_id = environment.create_coupon(requests)
    environment.clear_decisions()
    drain(environment, "to_be", coupon_id, build_records(coupon_id, shuffled_users(requests)), TO_BE_TOPIC)
    return {"to_be_per_second": decisions.issue_rate(environment, coupon_id)}


def check_to_be_refusals(environment: Environment) -> None:
    """Raise AssertionError unless the TO-BE consumer refuses duplicates and issues no more than the quantity."""
    coupon_id = environment.create_coupon(100)
    records = [*build_records(coupon_id, range(1, 51)), *build_records(coupon_id, range(1, 201))]
    with environment.suspended("to_be"):
        append(environment.stack.kafka_bootstrap_servers, records, TO_BE_TOPIC)
    missing = f"SELECT 150 - count(*) FROM requests WHERE coupon_id = {coupon_id} AND state = 'refused'"
    decisions.wait_for_issued(environment, coupon_id, 100)
    decisions.wait_for_zero(environment, "150 requests refused by the TO-BE consumer", missing)


EXPERIMENT = Experiment(
    name="drain",
    description="Drain of one coupon's backlog: the issuer, beside PostgreSQL's limit and the TO-BE consumer.",
    measure=measure,
    full=Size(100_000, 5_000),
    quick=Size(40_000, 1_500),
    rounds=5,
)
