"""Where the time goes: the issuer, the API and the comparators, each sampled under the load of its experiment."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from benchmarks.experiments.acts import TO_BE_TOPIC, burst, closed, drain, queue_for, start_as_is, start_to_be
from benchmarks.experiments.burst import PERIOD_SECONDS
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, prepared
from benchmarks.records import minted, shuffled
from benchmarks.sampled import WRITTEN_EVERY_SECONDS
from service.stream.topics import Topic

_SHOWN = 8
_WITHOUT_END = 10_000_000


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
            shares: dict[str, float] = {}
            with looking(ground, shares, "issuer-0"):
                drained(ground, "issuer-0", size.issuer, Topic.ISSUE_COUPON)
            with looking(ground, shares, "to_be"):
                drained(ground, "to_be", size.comparator, TO_BE_TOPIC)
            with looking(ground, shares, "as_is", "as_is_api"):
                scheduled(ground, as_is, size.comparator)
            with looking(ground, shares, "api"):
                closed(api, ground.coupon(_WITHOUT_END), size.api_seconds)
            yield shares


@contextmanager
def looking(ground: Ground, shares: dict[str, float], *parts: str) -> Iterator[None]:
    """Adds where these parts were while the block ran."""
    before = {part: seen(ground, part) for part in parts}
    yield
    for part in parts:
        found = seen(ground, part) - before[part]
        for place, samples in found.most_common(_SHOWN):
            shares[f"{part} {place}"] = samples / found.total()


def seen(ground: Ground, part: str) -> Counter[str]:
    """Samples until now, by place."""
    time.sleep(2 * WRITTEN_EVERY_SECONDS)
    return Counter(msgspec.json.decode(ground.samples(part).read_bytes(), type=dict[str, int]))


def drained(ground: Ground, part: str, requests: int, topic: str) -> None:
    """A backlog of one coupon."""
    coupon_id = ground.coupon(requests)
    drain(ground, part, coupon_id, minted(coupon_id, shuffled(requests)), topic)


def scheduled(ground: Ground, port: int, requests: int) -> None:
    """A burst on the replaced system."""
    coupon_id = ground.coupon(requests)
    queue_for(ground, coupon_id, requests)
    burst(ground, port, coupon_id, requests)
