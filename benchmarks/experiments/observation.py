"""Experiment `observation`: what it costs to see the system: metrics, the alerts' observation, open dashboards.

Two environments run an API and an issuer each. In one they count nothing, derive no alerts (`benchmarks.unobserved`)
and are not scraped; in the other both are scraped every three seconds while they are measured. Each round drains a
backlog and accepts requests in both, in turn, each round in another order. Then the CPU time is measured at rest, of
both, and with five dashboards open.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from benchmarks import decisions
from benchmarks.environment import Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, WARM_UP_SECONDS, Experiment, drain, warm_up
from benchmarks.figures import Figures, prefixed
from benchmarks.load.dashboards import open_dashboards
from benchmarks.load.http_load import closed_model, issuance_path, run_load
from benchmarks.load.records import build_records, shuffled_users
from benchmarks.load.scrapes import scraped

_PARTS = ("api", "issuer-0", "kafka", "postgres", "valkey")
_CONNECTIONS = 256
_DASHBOARDS = 5


class Size(NamedTuple):
    """Requests of a drain, seconds of the accepted load, and seconds of each measurement at rest."""

    requests: int
    closed_seconds: float
    rest_seconds: float


class _Side(NamedTuple):
    """One of the environments."""

    name: str
    environment: Environment
    api: int
    #: ports that are scraped while this side is measured
    scraped_ports: Sequence[int]


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the figures of each round."""
    with (
        _side(directory / "observed", "observed", "") as observed,
        _side(directory / "unobserved", "unobserved", "benchmarks.unobserved") as unobserved,
    ):
        for number in range(rounds):
            sides = (observed, unobserved) if number % 2 else (unobserved, observed)
            figures: dict[str, float] = {}
            for side in sides:
                with scraped(side.scraped_ports):
                    figures |= prefixed(side.name, _issue(side, size) | _rest(side, size.rest_seconds))
            with scraped(observed.scraped_ports), open_dashboards(observed.api, _DASHBOARDS):
                figures |= prefixed("dashboards", _rest(observed, size.rest_seconds))
            more = figures["dashboards_rest_all_cores"] - figures["observed_rest_all_cores"]
            yield figures | {"dashboards_more_cores": more}


@contextmanager
def _side(directory: Path, name: str, under: str) -> Iterator[_Side]:
    with start_environment(directory, under=under) as environment:
        issuer = environment.start_issuer()
        warm_up(environment, "issuer-0")
        api = environment.start_api()
        side = _Side(name, environment, api, () if under else (api, issuer))
        _accept(side, WARM_UP_SECONDS)
        yield side


def _issue(side: _Side, size: Size) -> dict[str, float]:
    """Return the rate of a drain, then that of accepted requests, which are issued meanwhile, and their CPU time."""
    environment = side.environment
    coupon_id = environment.create_coupon(size.requests)
    records = list(build_records(coupon_id, shuffled_users(size.requests)))
    environment.clear_decisions()
    drain(environment, "issuer-0", coupon_id, records)
    drained = {"drained_per_second": decisions.issue_rate(environment, coupon_id)}
    return drained | _accept(side, size.closed_seconds)


def _accept(side: _Side, seconds: float) -> dict[str, float]:
    coupon_id = side.environment.create_coupon(UNLIMITED)
    plan = replace(closed_model(side.api, "", seconds, _CONNECTIONS), paths=[issuance_path(coupon_id)])
    with side.environment.cpu_time(_PARTS) as cpu:
        result = run_load(plan)
        decisions.wait_for_count(side.environment, coupon_id, len(result.due))
    figures = {"per_second": result.rate_after(WARM_UP_SECONDS), **cpu.figures(len(result.due))}
    return prefixed("accepted", figures)


def _rest(side: _Side, seconds: float) -> dict[str, float]:
    """Return the share of a core that each part uses without a request."""
    with side.environment.cpu_time(_PARTS) as cpu:
        time.sleep(seconds)
    return prefixed("rest", cpu.cores(seconds))


EXPERIMENT = Experiment(
    name="observation",
    description="Metrics, scrapes, alerts and dashboards: rates and CPU time with and without them.",
    measure=measure,
    full=Size(50_000, 4.0, 10.0),
    quick=None,
    rounds=5,
)
