"""Where the time goes: the issuer, the API and the comparators, each sampled under the load of its experiment."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.experiments.acts import (
    TO_BE_TOPIC,
    WITHOUT_END,
    burst,
    closed,
    drain,
    queue_for,
    start_as_is,
    start_to_be,
)
from benchmarks.experiments.burst import PERIOD_SECONDS
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, prepared
from benchmarks.records import minted, shuffled
from benchmarks.sampled import WRITTEN_EVERY_SECONDS
from service.stream.topics import Topic

_SHOWN = 8


class Size(NamedTuple):
    """Requests for the issuer and for each comparator, seconds for the API."""

    issuer: int
    comparator: int
    api_seconds: float


FULL, QUICK = Size(200_000, 5_000, 6), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """A round gives the shares of the places where each part's main thread was, named `part place`."""
    with prepared(directory, WEBHOOK, sampled=True) as ground:
        api, as_is = ground.api(), start_as_is(ground, PERIOD_SECONDS, 0)
        ground.issuer()
        start_to_be(ground)
        for _ in range(rounds):
            yield {
                **drained(ground, "issuer-0", size.issuer, Topic.ISSUE_COUPON),
                **drained(ground, "to_be", size.comparator, TO_BE_TOPIC),
                **scheduled(ground, as_is, size.comparator),
                **pressed(ground, api, size.api_seconds),
            }


@contextmanager
def looking(ground: Ground, *parts: str) -> Iterator[dict[str, float]]:
    """Gives where these parts were while the block ran; it is filled when the block has ended."""
    shares: dict[str, float] = {}
    time.sleep(2 * WRITTEN_EVERY_SECONDS)
    before = {part: seen(ground, part) for part in parts}
    yield shares
    for part in parts:
        found = seen(ground, part) - before[part]
        shares |= {f"{part} {place}": samples / found.total() for place, samples in found.most_common(_SHOWN)}


def seen(ground: Ground, part: str) -> Counter[str]:
    """Samples until a moment ago, by place."""
    return Counter(msgspec.json.decode(ground.samples(part).read_bytes(), type=dict[str, int]))


def drained(ground: Ground, part: str, requests: int, topic: str) -> dict[str, float]:
    """A backlog of one coupon; while the part is held back it is not looked at either."""
    coupon_id = ground.coupon(requests)
    asked = list(minted(coupon_id, shuffled(requests)))
    with looking(ground, part) as shares:
        drain(ground, part, coupon_id, asked, topic)
    return shares


def scheduled(ground: Ground, port: int, requests: int) -> dict[str, float]:
    """A burst on the replaced system."""
    coupon_id = ground.coupon(requests)
    queue_for(ground, coupon_id, requests)
    with looking(ground, "as_is", "as_is_api") as shares:
        burst(ground, port, coupon_id, requests)
    return shares


def pressed(ground: Ground, port: int, seconds: float) -> dict[str, float]:
    """Presses on our API, with the issuer behind it."""
    with looking(ground, "api") as shares:
        closed(port, ground.coupon(WITHOUT_END), seconds)
    return shares
