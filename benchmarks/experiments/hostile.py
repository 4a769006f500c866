"""Experiment `hostile`: times of a sale's responses beside slow, silent and half-closed connections.

Each round measures a sale at a constant rate twice, alone and beside the connections. The same number of connections of
each kind is open all the time: a slow one sends a header every 250 ms and never ends its head, a silent one sends
nothing, a half-closed one sends half a head and closes its sending side. One that the server ends is opened again, at
most once a second.

It uses HTTP only, so that it can measure the API of any commit.
"""

from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.checkout import WORK_TREE, Checkout
from benchmarks.environment import Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, Experiment
from benchmarks.figures import Figures, in_milliseconds, prefixed
from benchmarks.load.coupons import create_coupon
from benchmarks.load.hostile import hostile_clients
from benchmarks.load.http_load import Plan, issuance_path, run_load

#: the sale begins when the server has ended the first connections, and others have taken their place
_HOSTILE_START_SECONDS = 6.0


class Size(NamedTuple):
    """Requests per second, seconds of each measurement, and hostile connections of each kind."""

    rate: float
    seconds: float
    connections: int


def measure(directory: Path, size: Size, rounds: int, checkout: Checkout = WORK_TREE) -> Iterator[Figures]:
    """Yield the figures of each round: response times and CPU time of the API, without and beside the connections."""
    with start_environment(directory, checkout=checkout) as environment:
        api = environment.start_api()
        environment.start_issuer()
        measure_sale(environment, api, size)
        for _ in range(rounds):
            without = measure_sale(environment, api, size)
            with hostile_clients(api, size.connections) as ended:
                sleep(_HOSTILE_START_SECONDS)
                beside = measure_sale(environment, api, size)
            counts = {f"{kind}_ended_by_server": count for kind, count in ended.items()}
            yield prefixed("without", without) | prefixed("beside", beside) | counts


def measure_sale(environment: Environment, api: int, size: Size) -> dict[str, float]:
    """Return response times, from when each request was due, and the API's CPU time; all requests are accepted."""
    coupon_id = create_coupon(api, UNLIMITED)
    with environment.cpu_time(("api",)) as cpu:
        result = run_load(Plan(api, [issuance_path(coupon_id)], 1, round(size.rate * size.seconds), rate=size.rate))
    decisions.wait_for_issued(environment, coupon_id, len(result.due))
    return in_milliseconds(result.latencies, "response") | {"api_cpu_us": cpu.figures(len(result.due))["api_cpu_us"]}


EXPERIMENT = Experiment(
    name="hostile",
    description="A sale beside slow, silent and half-closed connections: response times, and CPU time of the API.",
    measure=measure,
    full=Size(1_000, 8, 100),
    quick=Size(1_000, 4, 100),
    rounds=5,
    any_commit=True,
)
