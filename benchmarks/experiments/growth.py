"""Drains with ever more rows in the table: rate, look-ups, memory of the one issuer, bloat of the rows that move."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import text

from benchmarks import cost, decided
from benchmarks.earlier import LOOK_UPS, fill, look_up_ms
from benchmarks.experiments.acts import drain, warm
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, prepared
from benchmarks.records import minted, shuffled

#: drains until the consumer has once held as much as it ever will
_WARMING = 3
_MOVED = text(
    "SELECT relname, n_tup_upd::float, n_tup_hot_upd::float, pg_relation_size(relid)::float / 1024"
    " FROM pg_stat_user_tables WHERE relname IN ('coupons', 'offsets')"
)


class Size(NamedTuple):
    """Rows there are at each step, requests of each drain, and messages at least before memory is read again."""

    rows: tuple[int, ...]
    requests: int
    messages: int


FULL, QUICK = Size((1_000_000, 5_000_000), 100_000, 1_000_000), Size((5_000_000,), 40_000, 0)


class Side(NamedTuple):
    """A ground with an issuer, the port of its API, and ids of earlier requests in its table."""

    ground: Ground
    port: int
    names: list[str]


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
        for _ in range(len(size.rows) * rounds * size.requests, size.messages, size.requests):
            one(ours, size.requests, most)
        after = {"resident_mb_after": cost.resident_mb(filled, "issuer-0"), **moved(filled)}
    for each in zip(*steps, strict=True):
        yield {**before, **{name: value for found in each for name, value in found.items()}, **after}


def ready(ground: Ground, requests: int) -> Side:
    """Both processes started, and the issuer's consumer full once."""
    port = ground.api()
    ground.issuer()
    for _ in range(_WARMING):
        warm(ground, "issuer-0", requests)
    return Side(ground, port, [])


def moved(ground: Ground) -> dict[str, float]:
    """Updates of the rows that every poll moves, those that touched no index, and how large their tables are."""
    with ground.store.begin() as tx:
        rows = tx.execute(_MOVED).all()
    names = ("updates", "updates_hot", "table_kb")
    return {f"{table}_{name}": value for table, *values in rows for name, value in zip(names, values, strict=True)}


def step(sides: Mapping[int, Side], requests: int, rounds: int) -> list[dict[str, float]]:
    """So many rounds of a drain on each side, by the number of rows that it has."""
    for rows, side in sides.items():
        side.names[:] = fill(side.ground, rows)
    return [round_of(sides, requests) for _ in range(rounds)]


def round_of(sides: Mapping[int, Side], requests: int) -> dict[str, float]:
    """One drain after the other."""
    return {name: value for rows, side in sides.items() for name, value in one(side, requests, rows).items()}


def one(side: Side, requests: int, rows: int) -> dict[str, float]:
    """A drain and some look-ups, of earlier requests where there are any; an empty table is emptied again."""
    ground = side.ground
    coupon_id = ground.coupon(requests)
    asked = list(minted(coupon_id, shuffled(requests)))
    if not rows:
        ground.clear()
    drain(ground, "issuer-0", coupon_id, asked)
    names = side.names or [one.request_id for one in asked[:LOOK_UPS]]
    return {
        f"rows_{rows}_per_second": decided.rate(ground, coupon_id),
        f"rows_{rows}_look_up_ms": look_up_ms(side.port, names),
        f"rows_{rows}_resident_mb": cost.resident_mb(ground, "issuer-0"),
    }
