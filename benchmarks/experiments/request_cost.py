"""Experiment `request_cost`: CPU time per request of every process, for accepted requests and for each refusal.

It uses HTTP only, so that it can measure the API and the issuer of any commit.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from subprocess import CalledProcessError
from time import sleep
from typing import NamedTuple

from msgspec.structs import replace

from benchmarks import decisions
from benchmarks.checkout import WORK_TREE, Checkout
from benchmarks.environment import Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, WARM_UP_SECONDS, Experiment
from benchmarks.figures import Figures, in_milliseconds, prefixed
from benchmarks.load.coupons import change_coupon, create_coupon
from benchmarks.load.http_load import STATUS_ACCEPTED, LoadResult, Plan, closed_model, issuance_path, run_load

PARTS = ("api", "issuer-0", "kafka", "postgres", "valkey")
CASES = {
    "at_512": "accepted and issued, 512 connections",
    "at_64": "accepted and issued, 64 connections",
    "paced_3000": "accepted and issued, 3,000/s",
    "paced_1000": "accepted and issued, 1,000/s",
    "lone": "accepted and issued, one every 100 ms",
    "idle": "no request, 100 ms instead of one",
    "sold_out": "refused: sold out",
    "duplicate": "refused: duplicate",
    "closed": "refused: closed",
    "not_open": "refused: not open",
    "malformed": "refused: malformed body",
    "unknown_same": "refused: unknown coupon, the same id",
    "unknown_new": "refused: unknown coupon, an id never seen before",
    "plain": "client: plain",
    "split": "client: head and body in two segments",
    "h2c": "client: offers Upgrade: h2c",
    "proxied": "client: Authorization, Forwarded, X-Forwarded-For, traceparent",
    "charset": "client: application/json; charset=utf-8",
    "together": "client: all of these together",
}
"""What each case sends; the figures of a case begin with its name. A client's requests are accepted and issued."""

_CONNECTIONS = (512, 64)
_RATES = (3_000, 1_000)
_LONE_INTERVAL_SECONDS = 0.1
#: users whose requests are repeated in the case `duplicate`: so many that none of them exceeds the rate limit
_DUPLICATE_USERS = 20_000
#: work that a refusal leaves behind counts, too: a fill of the gate may end after its request was refused
_AFTERMATH_SECONDS = 1.0
_FAR_FUTURE = "2999-01-01T00:00:00Z"
#: above every id in the database: the first digits of an id, 16 more follow
_FIRST_UNKNOWN = 100
_H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"}
_PROXIED = {
    "Authorization": "Bearer eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9." + 300 * "e" + "." + 342 * "s",
    "Forwarded": "for=203.0.113.7;proto=https;host=coupons.example",
    "X-Forwarded-For": "203.0.113.7, 198.51.100.4",
    "traceparent": "00-4bf92f3577b34da6{number}-00f067aa0ba902b7-01",
}
_CHARSET = "application/json; charset=utf-8"
_CLIENTS: Mapping[str, Mapping[str, object]] = {
    "plain": {},
    "split": {"split": True},
    "h2c": {"headers": _H2C},
    "proxied": {"headers": _PROXIED},
    "charset": {"content_type": _CHARSET},
    "together": {"split": True, "headers": _H2C | _PROXIED, "content_type": _CHARSET},
}
"""What a client's plan changes of the plain one."""


Statuses = tuple[int, ...]


class Size(NamedTuple):
    """Seconds of each measurement, and requests of the case `lone`."""

    closed_seconds: float
    paced_seconds: float
    lone_requests: int
    refusal_seconds: float
    client_seconds: float


def measure(directory: Path, size: Size, rounds: int, checkout: Checkout = WORK_TREE) -> Iterator[Figures]:
    """Yield the figures of each round: of each case its rate, times of the responses, and CPU time by part."""
    with start_environment(directory, checkout=checkout) as environment:
        api = environment.start_api()
        environment.start_issuer()
        measure_accepted(environment, "warm_up", closed_model(api, "", size.closed_seconds))
        for number in range(rounds):
            yield {
                **measure_closed(environment, api, size.closed_seconds),
                **measure_paced(environment, api, size),
                **measure_idle(environment, size.lone_requests),
                **measure_clients(environment, api, size.client_seconds),
                **measure_refusals(environment, api, size.refusal_seconds, number),
            }


def measure_closed(environment: Environment, api: int, seconds: float) -> dict[str, float]:
    """Measure accepted requests in a closed model, with each number of connections."""
    figures: dict[str, float] = {}
    for connections in _CONNECTIONS:
        figures |= measure_accepted(environment, f"at_{connections}", closed_model(api, "", seconds, connections))
    return figures


def measure_paced(environment: Environment, api: int, size: Size) -> dict[str, float]:
    """Measure accepted requests in an open model, at each rate, and one request at a time."""
    figures: dict[str, float] = {}
    for rate in _RATES:
        plan = Plan(api, [], 1, round(rate * size.paced_seconds), rate=rate)
        figures |= measure_accepted(environment, f"paced_{rate}", plan)
    lone = Plan(api, [], 1, size.lone_requests, connections=1, rate=1 / _LONE_INTERVAL_SECONDS)
    return figures | measure_accepted(environment, "lone", lone)


def measure_idle(environment: Environment, intervals: int) -> dict[str, float]:
    """Return the CPU time that the processes use without a request, in the interval of the case `lone`."""
    with environment.cpu_time(PARTS) as cpu:
        sleep(intervals * _LONE_INTERVAL_SECONDS)
    return prefixed("idle", cpu.figures(intervals))


def measure_refusals(environment: Environment, api: int, seconds: float, number: int) -> dict[str, float]:
    """Measure each refusal in a closed model; no id of an unknown coupon is used in two rounds."""
    figures: dict[str, float] = {}
    for case, (statuses, plan) in refusals(environment, api, seconds, number).items():
        figures |= _measure(environment, case, plan, statuses)[0]
    return figures


def refusals(environment: Environment, api: int, seconds: float, number: int) -> dict[str, tuple[Statuses, Plan]]:
    """Prepare the coupons of a round's refusals; return the expected status codes and the plan of each."""
    sold_out, many, closed = create_coupon(api, 1), create_coupon(api, UNLIMITED), create_coupon(api, 1)
    for coupon_id, users in ((sold_out, 1), (many, _DUPLICATE_USERS)):
        run_load(Plan(api, [issuance_path(coupon_id)], 1, users))
        decisions.wait_for_issued(environment, coupon_id, users)
    change_coupon(api, closed, state="closed")
    not_open = create_coupon(api, 1, opens_at=_FAR_FUTURE)

    def plan(coupon_id: object) -> Plan:
        return replace(closed_model(api, f"/coupons/{coupon_id}/issuances", seconds, 64), first_user=2)

    first_digits = _FIRST_UNKNOWN + number
    return {
        "sold_out": ((409,), plan(sold_out)),
        "duplicate": ((409,), replace(plan(many), first_user=1, users=_DUPLICATE_USERS)),
        "closed": ((409,), plan(closed)),
        "not_open": ((409,), plan(not_open)),
        "malformed": ((422,), replace(plan(many), body='{"user_id": x}')),
        "unknown_same": ((404,), plan(f"{first_digits}{10**16 - 1}")),
        "unknown_new": ((404, 503), plan(f"{first_digits}{{number}}")),  # 503: too many at once for the database
    }


def measure_clients(environment: Environment, api: int, seconds: float) -> dict[str, float]:
    """Measure each client's form of the same request; one whose requests are not accepted has `accepted` 0 only."""
    figures: dict[str, float] = {}
    plain = closed_model(api, "", seconds, 64)
    for case, changes in _CLIENTS.items():
        plan = replace(plain, **changes)
        figures[f"{case}_accepted"] = accepted = is_accepted(plan)
        if accepted:
            figures |= measure_accepted(environment, case, plan)
    return figures


def is_accepted(plan: Plan) -> bool:
    """Send a single request of a plan; return whether it was accepted."""
    path = issuance_path(create_coupon(plan.port, 1))
    with suppress(AssertionError, CalledProcessError):
        run_load(replace(plan, paths=[path], requests=1, connections=1))
        return True
    return False


def measure_accepted(environment: Environment, case: str, plan: Plan) -> dict[str, float]:
    """Run a plan for a new coupon, until all its requests are issued; include the waits in an open model."""
    coupon_id = create_coupon(plan.port, UNLIMITED)
    plan = replace(plan, paths=[issuance_path(coupon_id)])
    figures, result = _measure(environment, case, plan, (STATUS_ACCEPTED,), coupon_id)
    decisions.check_issued(environment, coupon_id, len(result.due))
    waits = decisions.waits(environment, [coupon_id], 1, result) if plan.rate else []
    return figures | in_milliseconds(waits, f"{case}_wait")


def _measure(
    environment: Environment, case: str, plan: Plan, statuses: Statuses, coupon_id: int | None = None
) -> tuple[dict[str, float], LoadResult]:
    """Run a plan; CPU time counts until all requests for the coupon are issued, or for a while after the refusals."""
    with environment.cpu_time(PARTS) as cpu:
        result = run_load(plan, *statuses)
        if coupon_id is None:
            sleep(_AFTERMATH_SECONDS)
        else:
            decisions.wait_for_count(environment, coupon_id, len(result.due))
    figures = {
        "per_second": result.rate_after(WARM_UP_SECONDS),
        **in_milliseconds(result.latencies, "response"),
        **cpu.figures(len(result.due)),
        "generator_share": result.cpu_share,
    }
    return prefixed(case, figures), result


EXPERIMENT = Experiment(
    name="request_cost",
    description="CPU time per request by part: accepted and issued, refused, and as real clients send it.",
    measure=measure,
    full=Size(4.0, 4.0, 50, 2.0, 3.0),
    quick=Size(2.0, 2.0, 20, 1.0, 1.5),
    rounds=3,
    any_commit=True,
)
