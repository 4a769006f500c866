"""Experiment `growth`: issue rate, look-ups and memory after millions of rows and messages.

One environment is filled step by step. When it is full, its drains alternate with those of an empty one, so that both
run under the same conditions. Round n is the n-th drain of every step.
"""

import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import NamedTuple

from sqlalchemy import text

from benchmarks import decisions
from benchmarks.environment import WEBHOOK, Environment, start_environment
from benchmarks.experiments.common import Experiment, drain, warm_up
from benchmarks.figures import Figures
from benchmarks.load.backfill import backfill
from benchmarks.load.records import build_records, shuffled_users

#: drains until the consumer's memory has reached its maximum once
_WARM_UP_DRAINS = 3
_LOOK_UPS = 500
_UPDATES = text(
    "SELECT relname, n_tup_upd::float, n_tup_hot_upd::float, pg_relation_size(relid)::float / 1024"
    " FROM pg_stat_user_tables WHERE relname IN ('coupons', 'offsets')"
)


class Size(NamedTuple):
    """Rows in the table at each step, requests of each drain, and the least messages before memory is read again."""

    rows: tuple[int, ...]
    requests: int
    messages: int


class Side(NamedTuple):
    """An environment with an issuer, the port of its API, and request ids of backfilled rows."""

    environment: Environment
    port: int
    request_ids: list[str]


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the figures of each round."""
    *earlier_steps, most = size.rows
    with (
        start_environment(directory / "filled", WEBHOOK) as filled,
        start_environment(directory / "empty", WEBHOOK) as empty,
    ):
        filled_side, empty_side = start_side(filled, size.requests), start_side(empty, size.requests)
        before = {"resident_mb_before": filled.resident_mb("issuer-0")}
        steps = [run_step({rows: filled_side}, size.requests, rounds) for rows in earlier_steps]
        steps.append(run_step({most: filled_side, 0: empty_side}, size.requests, rounds))
        for _ in range(len(size.rows) * rounds * size.requests, size.messages, size.requests):
            run_drain(filled_side, size.requests, most)
        after = {"resident_mb_after": filled.resident_mb("issuer-0"), **update_figures(filled)}
    for each in zip(*steps, strict=True):
        yield {**before, **{name: value for figures in each for name, value in figures.items()}, **after}


def start_side(environment: Environment, requests: int) -> Side:
    """Start API and issuer, and warm up the issuer."""
    port = environment.start_api()
    environment.start_issuer()
    for _ in range(_WARM_UP_DRAINS):
        warm_up(environment, "issuer-0", requests)
    return Side(environment, port, [])


def update_figures(environment: Environment) -> dict[str, float]:
    """Return updates, HOT updates and table size of the rows that every poll updates."""
    with environment.store.begin() as tx:
        rows = tx.execute(_UPDATES).all()
    names = ("updates", "updates_hot", "table_kb")
    return {f"{table}_{name}": value for table, *values in rows for name, value in zip(names, values, strict=True)}


def run_step(sides: Mapping[int, Side], requests: int, rounds: int) -> list[dict[str, float]]:
    """Backfill each side up to its number of rows, the key; then drain the sides in turn, round after round."""
    for rows, side in sides.items():
        side.request_ids[:] = backfill(side.environment, rows, _LOOK_UPS)
    return [
        {name: value for rows, side in sides.items() for name, value in run_drain(side, requests, rows).items()}
        for _ in range(rounds)
    ]


def run_drain(side: Side, requests: int, rows: int) -> dict[str, float]:
    """Drain a backlog and look up requests, backfilled ones if there are any. A side of 0 rows is emptied before."""
    environment = side.environment
    coupon_id = environment.create_coupon(requests)
    records = list(build_records(coupon_id, shuffled_users(requests)))
    if not rows:
        environment.clear_decisions()
    drain(environment, "issuer-0", coupon_id, records)
    request_ids = side.request_ids or [record.request_id for record in records[:_LOOK_UPS]]
    return {
        f"rows_{rows}_per_second": decisions.issue_rate(environment, coupon_id),
        f"rows_{rows}_look_up_ms": look_up_ms(side.port, request_ids),
        f"rows_{rows}_resident_mb": environment.resident_mb("issuer-0"),
    }


def look_up_ms(port: int, request_ids: list[str]) -> float:
    """Return the median milliseconds of `GET /issuances/{request_id}`, one after the other over one connection."""
    connection = HTTPConnection("127.0.0.1", port)
    seconds = []
    for request_id in request_ids:
        began = time.perf_counter()
        connection.request("GET", f"/issuances/{request_id}")
        response = connection.getresponse()
        assert b'"issued"' in response.read(), f"{request_id}: status {response.status}, not issued"
        seconds.append(time.perf_counter() - began)
    connection.close()
    return median(seconds) * 1000


EXPERIMENT = Experiment(
    name="growth",
    description="Drains with ever more rows in the table: rate, look-ups, memory of the issuer, bloat of updated rows.",
    measure=measure,
    full=Size((1_000_000, 5_000_000), 100_000, 1_000_000),
    quick=Size((5_000_000,), 40_000, 0),
    rounds=5,
)
