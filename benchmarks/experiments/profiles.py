"""Experiment `profiles`: code locations of issuer, API and comparators, each under the load of its experiment."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.comparators.as_is_queue import register_coupon
from benchmarks.environment import WEBHOOK, Environment, start_environment
from benchmarks.experiments.common import TO_BE_TOPIC, UNLIMITED, Experiment, burst, start_as_is, start_to_be
from benchmarks.figures import Figures
from benchmarks.load.http_load import run_closed_model
from benchmarks.load.records import append, build_records, shuffled_users
from benchmarks.profiler import profile
from service.stream.topics import Topic

#: prefixes of the figures: the share of time in which a thread was at a location, and was running there
PRESENT, RUNNING = "present", "running"


class Size(NamedTuple):
    """Requests for the issuer and for each comparator, seconds for the API."""

    issuer: int
    comparator: int
    api_seconds: float


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield shares of time, named `present part (thread) location` and `running part (thread) location`."""
    with start_environment(directory, WEBHOOK, under="benchmarks.profiler") as environment:
        api, as_is = environment.start_api(), start_as_is(environment, 0.1, 0)
        environment.start_issuer()
        start_to_be(environment)
        for _ in range(rounds):
            yield {
                **profile_drain(environment, "issuer-0", size.issuer, Topic.ISSUE_COUPON),
                **profile_drain(environment, "to_be", size.comparator, TO_BE_TOPIC),
                **profile_as_is(environment, as_is, size.comparator),
                **profile_api(environment, api, size.api_seconds),
            }


@contextmanager
def profiled(environment: Environment, *parts: str) -> Iterator[Figures]:
    """Profile parts while the block runs; the yielded figures are filled when the block ends."""
    figures: dict[str, float] = {}
    stack = environment.stack
    with ExitStack() as samplers:
        profiles = {part: samplers.enter_context(profile(stack.pid(part), stack.directory, part)) for part in parts}
        yield figures
    for part, (present, running) in profiles.items():
        figures |= {f"{PRESENT} {part} {location}": share for location, share in present.items()}
        figures |= {f"{RUNNING} {part} {location}": share for location, share in running.items()}


def profile_drain(environment: Environment, part: str, requests: int, topic: str) -> Figures:
    """Profile a consumer that drains a backlog of one coupon, from when it is resumed."""
    coupon_id = environment.create_coupon(requests)
    records = list(build_records(coupon_id, shuffled_users(requests)))
    with environment.suspended(part):
        append(environment.stack.kafka_bootstrap_servers, records, topic)
    with profiled(environment, part) as shares:
        decisions.wait_for_count(environment, coupon_id, requests)
    decisions.check_issued(environment, coupon_id, requests)
    return shares


def profile_as_is(environment: Environment, port: int, requests: int) -> Figures:
    """Profile the AS-IS system during a burst."""
    coupon_id = environment.create_coupon(requests)
    register_coupon(environment.stack.redis_url, coupon_id, requests)
    with profiled(environment, "as_is", "as_is_api") as shares:
        burst(environment, port, coupon_id, requests)
    return shares


def profile_api(environment: Environment, port: int, seconds: float) -> Figures:
    """Profile this project's API in a closed model, with the issuer running."""
    with profiled(environment, "api") as shares:
        run_closed_model(port, environment.create_coupon(UNLIMITED), seconds)
    return shares


EXPERIMENT = Experiment(
    name="profiles",
    description="Where the time goes: the issuer, the API and the comparators, profiled under their experiment's load.",
    measure=measure,
    full=Size(400_000, 5_000, 6),
    quick=None,
    rounds=1,
)
