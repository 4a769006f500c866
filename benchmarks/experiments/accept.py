"""Experiment `accept`: accepted requests per second of one API process, and waits at half of that rate.

Each round measures the constant servers, the API while the issuer is suspended, the API while the issuer issues, then
half of the last rate in an open model.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.environment import Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, WARM_UP_SECONDS, Experiment, accept_without_issuing
from benchmarks.figures import Figures, in_milliseconds
from benchmarks.load.http_load import LoadResult, Plan, issuance_path, run_closed_model, run_load

_PARTS = ("api", "issuer-0", "postgres", "kafka", "valkey")
_CONNECTIONS = (64, 256)
_CONSTANTS = {"bare": "bare", "constant": "fastapi"}
"""Figure name by the variant of the constant server."""


class Size(NamedTuple):
    """Seconds of each closed-model and of the open-model measurement."""

    closed_seconds: float
    open_seconds: float


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the figures of each round: for each server, the better rate of the two connection counts."""
    with start_environment(directory) as environment:
        api = environment.start_api()
        module = "benchmarks.comparators.constant_server"
        constants = {
            name: environment.start_server(name, module, variant, port_variable="API_PORT")
            for name, variant in _CONSTANTS.items()
        }
        environment.start_issuer()
        for port in constants.values():
            run_closed_model(port, 1, 1)
        run_closed_model(api, environment.create_coupon(UNLIMITED), 1)
        for _ in range(rounds):
            figures: dict[str, float] = {}
            for connections in _CONNECTIONS:
                rates = closed_model_rates(environment, api, constants, size, connections)
                figures |= {f"by_{connections}_{name}": value for name, value in rates.items()}
            for name in (*constants, "accepted", "while_issuing"):
                # with few connections all may wait for the broker at the same time, and the API idles
                figures[f"{name}_per_second"] = max(figures[f"by_{n}_{name}_per_second"] for n in _CONNECTIONS)
            yield figures | waits_at_half(environment, api, figures["while_issuing_per_second"] / 2, size)


def closed_model_rates(
    environment: Environment, api: int, constants: Mapping[str, int], size: Size, connections: int
) -> dict[str, float]:
    """Return responses per second: of the constant servers, of the API without and with the issuer running."""
    figures: dict[str, float] = {}
    for name, port in constants.items():
        figures |= _rate(name, run_closed_model(port, 1, size.closed_seconds, connections))
    figures |= _rate("accepted", accept_without_issuing(environment, api, size.closed_seconds, connections))
    return figures | accept_while_issuing(environment, api, size, connections)


def accept_while_issuing(environment: Environment, api: int, size: Size, connections: int) -> dict[str, float]:
    """Return accepted requests per second while the issuer issues them, and CPU time per request of each part."""
    coupon_id = environment.create_coupon(UNLIMITED)
    with environment.cpu_time(_PARTS) as cpu:
        result = run_closed_model(api, coupon_id, size.closed_seconds, connections)
        decisions.wait_for_count(environment, coupon_id, len(result.due))
    decisions.check_issued(environment, coupon_id, len(result.due))
    return _rate("while_issuing", result) | cpu.figures(len(result.due))


def _rate(name: str, result: LoadResult) -> dict[str, float]:
    return {
        f"{name}_per_second": result.rate_after(WARM_UP_SECONDS),
        f"{name}_generator_share": result.cpu_share,
        f"{name}_generator_us": result.cpu_seconds / len(result.due) * 1e6,
    }


def waits_at_half(environment: Environment, api: int, rate: float, size: Size) -> dict[str, float]:
    """Return waits for the issuance and for the response at a constant rate, from when each request was due."""
    coupon_id = environment.create_coupon(UNLIMITED)
    result = run_load(Plan(api, [issuance_path(coupon_id)], 1, round(rate * size.open_seconds), rate=rate))
    decisions.wait_for_issued(environment, coupon_id, len(result.due))
    return {
        "half_per_second": rate,
        **in_milliseconds(decisions.waits(environment, [coupon_id], 1, result), "half_wait"),
        **in_milliseconds(result.latencies, "half_response"),
        "half_generator_cpu_share": result.cpu_share,
    }


EXPERIMENT = Experiment(
    name="accept",
    description="Accepted requests: one API process beside servers with a constant response, and waits at half load.",
    measure=measure,
    full=Size(4.0, 10.0),
    quick=Size(2.0, 2.0),
    rounds=5,
)
