"""Accepts requests: one API process beside the same server with constants, and the wait at half of what it takes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import cost, decided
from benchmarks.experiments.acts import WARM_SECONDS, WITHOUT_END, accepted, closed, path
from benchmarks.figures import Figures, in_milliseconds
from benchmarks.ground import Ground, prepared
from benchmarks.load.plan import Plan, Pressed
from benchmarks.load.pressing import press

_PARTS = ("api", "issuer-0", "postgres", "kafka", "valkey")
_CONNECTIONS = (64, 256)


class Size(NamedTuple):
    """How long each part of a round presses."""

    closed_seconds: float
    open_seconds: float


FULL, QUICK = Size(4.0, 10.0), Size(2.0, 2.0)


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Each round: the constants, the API alone, the API while the issuer issues, then half of that in an open model."""
    with prepared(directory) as ground:
        api = ground.api()
        constants = {name: ground.api(name, f"benchmarks.comparators.{name}") for name in ("bare", "constant")}
        ground.issuer()
        for port in constants.values():
            closed(port, 1, 1)
        closed(api, ground.coupon(WITHOUT_END), 1)
        for _ in range(rounds):
            found: dict[str, float] = {}
            for connections in _CONNECTIONS:
                found |= _named(answered(ground, api, constants, size, connections), connections)
            found |= {f"{name}_per_second": _better(found, name) for name in (*constants, "accepted", "while_issuing")}
            yield found | at_half(ground, api, found["while_issuing_per_second"] / 2, size)


def answered(ground: Ground, api: int, constants: Mapping[str, int], size: Size, connections: int) -> dict[str, float]:
    """Answers per second in a closed model: constants, accepted while nobody issues, accepted while issued."""
    found: dict[str, float] = {}
    for name, port in constants.items():
        found |= _told(name, closed(port, 1, size.closed_seconds, connections))
    found |= _told("accepted", accepted(ground, api, size.closed_seconds, connections))
    return found | while_issuing(ground, api, size, connections)


def while_issuing(ground: Ground, api: int, size: Size, connections: int) -> dict[str, float]:
    """Accepted per second while they are issued at that rate, and what each part spends."""
    coupon_id = ground.coupon(WITHOUT_END)
    with cost.measured(ground, _PARTS) as spent:
        pressed = closed(api, coupon_id, size.closed_seconds, connections)
        decided.await_issued(ground, coupon_id, len(pressed.due))
    return _told("while_issuing", pressed) | spent.figures(len(pressed.due))


def _told(name: str, pressed: Pressed) -> dict[str, float]:
    return {
        f"{name}_per_second": pressed.rate_after(WARM_SECONDS),
        f"{name}_generator_share": pressed.cpu_share,
        f"{name}_generator_us": pressed.cpu_seconds / len(pressed.due) * 1e6,
    }


def _named(found: Mapping[str, float], connections: int) -> dict[str, float]:
    return {f"by_{connections}_{name}": value for name, value in found.items()}


def _better(found: Mapping[str, float], name: str) -> float:
    """A constant waits for nothing; of few connections all may wait for the broker at once, and the API with them."""
    return max(found[f"by_{connections}_{name}_per_second"] for connections in _CONNECTIONS)


def at_half(ground: Ground, api: int, rate: float, size: Size) -> dict[str, float]:
    """Waits at a constant rate, counted from when each request was due."""
    coupon_id = ground.coupon(WITHOUT_END)
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
