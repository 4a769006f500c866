"""Drains a backlog of one coupon: the issuer, beside the database's limit and the report's consumer."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks import cost, decided
from benchmarks.experiments.acts import TO_BE_TOPIC, drain, held_back, start_to_be, warm
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, prepared
from benchmarks.limits import insert
from benchmarks.records import append, minted, shuffled

_PARTS = ("issuer-0", "postgres", "kafka", "valkey")


class Size(NamedTuple):
    """Requests of a round."""

    issuer: int
    to_be: int


FULL, QUICK = Size(100_000, 5_000), Size(40_000, 1_500)


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Each round: the issuer, then the limit with the same rows, then message by message."""
    with prepared(directory, WEBHOOK) as ground:
        ground.issuer()
        start_to_be(ground)
        warm(ground, "issuer-0")
        refuse_like_ours(ground)
        for _ in range(rounds):
            yield ours(ground, size.issuer) | to_be(ground, size.to_be)


def ours(ground: Ground, requests: int) -> dict[str, float]:
    """The issuer's rate and cost, and the limit of the very rows that it wrote."""
    coupon_id = ground.coupon(requests)
    asked = list(minted(coupon_id, shuffled(requests)))
    ground.clear()
    with cost.measured(ground, _PARTS) as spent:
        drain(ground, "issuer-0", coupon_id, asked)
    found = {"ours_per_second": decided.rate(ground, coupon_id), **spent.figures(requests)}
    return found | insert.measure(ground, coupon_id)


def to_be(ground: Ground, requests: int) -> dict[str, float]:
    """The rate of the report's consumer."""
    coupon_id = ground.coupon(requests)
    ground.clear()
    drain(ground, "to_be", coupon_id, minted(coupon_id, shuffled(requests)), TO_BE_TOPIC)
    return {"to_be_per_second": decided.rate(ground, coupon_id)}


def refuse_like_ours(ground: Ground) -> None:
    """Raises AssertionError unless the report's consumer refuses repeats and issues no more than there are."""
    coupon_id = ground.coupon(100)
    asked = [*minted(coupon_id, range(1, 51)), *minted(coupon_id, range(1, 201))]
    with held_back(ground, "to_be"):
        append(ground.stack.kafka_bootstrap_servers, asked, TO_BE_TOPIC)
    refused = f"SELECT 150 - count(*) FROM requests WHERE coupon_id = {coupon_id} AND state = 'refused'"
    decided.await_issued(ground, coupon_id, 100)
    decided.await_none(ground, "150 refused message by message", refused)
