"""Drains with ever more rows in the table: rate, look-ups, memory of the one issuer, bloat of the rows that move."""

import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psycopg
from sqlalchemy import text

from benchmarks import cost, decided
from benchmarks.experiments.acts import drain, new_log, warm
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, prepared
from benchmarks.records import minted, shuffled

_COUPON_ROWS = 100_000
_LOOK_UPS = 500
#: drains until the consumer has once held as much as it ever will
_WARMING = 3
_FILL = (
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, sequence, attempts,'
    " requested_at, decided_at) SELECT %(log)s, 0, %(first)s + n, %(coupon)s,"
    "  1 + mod(n * 7919, %(rows)s), lpad(%(coupon)s || '-' || n, 60, '0'), 'issued', n, 1, now(), now()"
    " FROM generate_series(1, %(rows)s) AS n"
)
_MOVED = text(
    "SELECT relname, n_tup_upd::float, n_tup_hot_upd::float, pg_relation_size(relid)::float / 1024"
    " FROM pg_stat_user_tables WHERE relname IN ('coupons', 'offsets')"
)


class Size(NamedTuple):
    """Rows there are at each step, and requests of each drain."""

    rows: tuple[int, ...]
    requests: int


FULL, QUICK = Size((1_000_000, 5_000_000), 100_000), Size((5_000_000,), 60_000)


class Side(NamedTuple):
    """A ground with an issuer, and the port of its API."""

    ground: Ground
    port: int


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """One ground is filled step by step; when it is full, its drains alternate with those of an empty one.

    So both meet the same machine. Round n is the n-th of every step.
    """
    *earlier, most = size.rows
    with prepared(directory / "filled", WEBHOOK) as filled, prepared(directory / "empty", WEBHOOK) as empty:
        ours, beside = ready(filled, size.requests), ready(empty, size.requests)
        before = {"resident_mb_before": cost.resident_mb(filled, "issuer-0")}
        steps = [step({rows: ours}, size.requests, rounds) for rows in earlier]
        steps.append(step({most: ours, 0: beside}, size.requests, rounds))
        after = {"resident_mb_after": cost.resident_mb(filled, "issuer-0"), **moved(filled)}
    for each in zip(*steps, strict=True):
        yield {**before, **{name: value for found in each for name, value in found.items()}, **after}


def ready(ground: Ground, requests: int) -> Side:
    """Both processes started, and the issuer's consumer full once."""
    port = ground.api()
    ground.issuer()
    for _ in range(_WARMING):
        warm(ground, "issuer-0", requests)
    return Side(ground, port)


def moved(ground: Ground) -> dict[str, float]:
    """Updates of the rows that every poll moves, those that touched no index, and how large their tables are."""
    with ground.store.begin() as tx:
        rows = tx.execute(_MOVED).all()
    names = ("updates", "updates_hot", "table_kb")
    return {f"{table}_{name}": value for table, *values in rows for name, value in zip(names, values, strict=True)}


def step(sides: Mapping[int, Side], requests: int, rounds: int) -> list[dict[str, float]]:
    """So many rounds of a drain on each side, by the number of rows that it has."""
    for rows, side in sides.items():
        fill(side.ground, rows)
    return [round_of(sides, requests) for _ in range(rounds)]


def round_of(sides: Mapping[int, Side], requests: int) -> dict[str, float]:
    """One drain after the other."""
    return {name: value for rows, side in sides.items() for name, value in one(side, requests, rows).items()}


def one(side: Side, requests: int, rows: int) -> dict[str, float]:
    """A drain and some look-ups; an empty table is emptied again."""
    ground = side.ground
    coupon_id = ground.coupon(requests)
    asked = list(minted(coupon_id, shuffled(requests)))
    if not rows:
        ground.clear()
    drain(ground, "issuer-0", coupon_id, asked)
    return {
        f"rows_{rows}_per_second": decided.rate(ground, coupon_id),
        f"rows_{rows}_look_up_ms": look_up_ms(side.port, [one.request_id for one in asked[:_LOOK_UPS]]),
    }


def fill(ground: Ground, rows: int) -> None:
    """Fills the table up to so many rows, of earlier coupons; as the server itself inserts fastest."""
    log = new_log(ground, "earlier")
    with psycopg.connect(ground.stack.database_url, autocommit=True) as connection:
        while (there := _rows(connection)) < rows:
            values = {"log": log, "first": there, "coupon": ground.coupon(_COUPON_ROWS), "rows": _COUPON_ROWS}
            connection.execute(_FILL, values)
        connection.execute("VACUUM ANALYZE requests")
        connection.execute("CHECKPOINT")


def _rows(connection: "psycopg.Connection") -> int:
    found = connection.execute("SELECT count(*) FROM requests").fetchone()
    assert found
    return int(found[0])


def look_up_ms(port: int, request_ids: list[str]) -> float:
    """Median milliseconds of `GET /issuances/{request_id}`, one after the other over one connection."""
    connection = HTTPConnection("127.0.0.1", port)
    spent = []
    for request_id in request_ids:
        began = time.perf_counter()
        connection.request("GET", f"/issuances/{request_id}")
        answer = connection.getresponse()
        assert b'"issued"' in answer.read(), f"{request_id} was answered {answer.status}"
        spent.append(time.perf_counter() - began)
    connection.close()
    return median(spent) * 1000
