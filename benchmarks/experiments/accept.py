"""Accepts requests: one API process beside the same server with a constant, and the wait at half of what it takes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import cost, decided
from benchmarks.experiments.acts import closed, held_back, path
from benchmarks.figures import Figures, in_milliseconds
from benchmarks.ground import Ground, prepared
from benchmarks.load.plan import Plan, Pressed
from benchmarks.load.pressing import press

_PARTS = ("api", "issuer-0", "postgres", "kafka", "valkey")
_WARM_SECONDS = 0.5
_CONNECTIONS = (64, 256)
_WITHOUT_END = 10_000_000


class Size(NamedTuple):
    """How long each part of a round presses."""

    closed_seconds: float
    open_seconds: float


FULL, QUICK = Size(4.0, 10.0), Size(2.0, 3.0)


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Each round: the constant, the API alone, the API while the issuer issues, then half of that in an open model."""
    with prepared(directory) as ground:
        api, constant = ground.api(), ground.api("constant", "benchmarks.comparators.constant")
        ground.issuer()
        for port in (constant, api):
            closed(port, ground.coupon(_WITHOUT_END), 1)
        for _ in range(rounds):
            found = {**alone(ground, api, constant, size), **while_issuing(ground, api, size)}
            yield found | at_half(ground, api, found["while_issuing_per_second"] / 2, size)


def alone(ground: Ground, api: int, constant: int, size: Size) -> dict[str, float]:
    """Answers per second while nobody issues: of each server with few connections and with many, and the better."""
    found = {}
    for connections in _CONNECTIONS:
        coupon_id = ground.coupon(_WITHOUT_END)
        answered = closed(constant, 1, size.closed_seconds, connections)
        with held_back(ground, "issuer-0"):
            pressed = closed(api, coupon_id, size.closed_seconds, connections)
        decided.await_issued(ground, coupon_id, len(pressed.due))
        found[f"constant_by_{connections}_per_second"] = answered.rate_after(_WARM_SECONDS)
        found[f"accepted_by_{connections}_per_second"] = pressed.rate_after(_WARM_SECONDS)
        found[f"generator_by_{connections}_cpu_share"] = pressed.cpu_share
    return found | {f"{server}_per_second": _better(found, server) for server in ("constant", "accepted")}


def _better(found: Mapping[str, float], server: str) -> float:
    """A constant waits for nothing; of few connections all may wait for the broker at once, and the API with them."""
    return max(found[f"{server}_by_{connections}_per_second"] for connections in _CONNECTIONS)


def while_issuing(ground: Ground, api: int, size: Size) -> dict[str, float]:
    """Accepted per second while they are issued at that rate, and what each part spends."""
    coupon_id = ground.coupon(_WITHOUT_END)
    with cost.measured(ground, _PARTS) as spent:
        pressed = closed(api, coupon_id, size.closed_seconds)
        decided.await_issued(ground, coupon_id, len(pressed.due))
    rate = pressed.rate_after(_WARM_SECONDS)
    generator = {"generator_cpu_us": pressed.cpu_seconds / len(pressed.due) * 1e6}
    return {"while_issuing_per_second": rate, **generator, **spent.figures(len(pressed.due))}


def at_half(ground: Ground, api: int, rate: float, size: Size) -> dict[str, float]:
    """Waits at a constant rate, counted from when each request was due."""
    coupon_id = ground.coupon(_WITHOUT_END)
    pressed = press(Plan(api, [path(coupon_id)], 1, round(rate * size.open_seconds), rate=rate))
    decided.await_issued(ground, coupon_id, len(pressed.due))
    return {"half_per_second": rate} | waited(ground, coupon_id, pressed, "half")


def waited(ground: Ground, coupon_id: int, pressed: Pressed, prefix: str) -> dict[str, float]:
    """Waits for the answer and for the issuance, and the generator's share of a core."""
    waits = decided.waits(ground, [coupon_id], 1, pressed)
    return {
        **in_milliseconds(waits, f"{prefix}_wait"),
        **in_milliseconds(pressed.latencies, f"{prefix}_answer"),
        f"{prefix}_generator_cpu_share": pressed.cpu_share,
    }
