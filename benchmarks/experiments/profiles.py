"""Where the time goes: the issuer, the API and the comparators, each sampled under the load of its experiment."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks import decided
from benchmarks.experiments.acts import (
    TO_BE_TOPIC,
    WITHOUT_END,
    burst,
    closed,
    held_back,
    queue_for,
    start_as_is,
    start_to_be,
)
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, await_that, prepared
from benchmarks.records import append, minted, shuffled
from benchmarks.spying import spying
from service.stream.topics import Topic

#: before a part, a thread and a place: the part of the time in which it was there, and in which it ran there
THERE, RAN = "there", "ran"


class Size(NamedTuple):
    """Requests for the issuer and for each comparator, seconds for the API."""

    issuer: int
    comparator: int
    api_seconds: float


FULL, QUICK = Size(400_000, 5_000, 6), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """A round gives the shares of the places where each part's threads were, named `there part (thread) place`."""
    with prepared(directory, WEBHOOK, sampled=True) as ground:
        api, as_is = ground.api(), start_as_is(ground, 0.1, 0)
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
def looking(ground: Ground, *parts: str) -> Iterator[Figures]:
    """Gives where these parts were while the block ran; it is filled when the block has ended."""
    figures: dict[str, float] = {}
    with ExitStack() as spies:
        seen = {part: spies.enter_context(spying(ground, part)) for part in parts}
        yield figures
    for part, (there, ran) in seen.items():
        figures |= {f"{THERE} {part} {place}": share for place, share in there.items()}
        figures |= {f"{RAN} {part} {place}": share for place, share in ran.items()}


def drained(ground: Ground, part: str, requests: int, topic: str) -> Figures:
    """A backlog of one coupon, from when the part may go on."""
    coupon_id = ground.coupon(requests)
    asked = list(minted(coupon_id, shuffled(requests)))
    with held_back(ground, part):
        append(ground.stack.kafka_bootstrap_servers, asked, topic)
    with looking(ground, part) as shares:
        await_that(lambda: ground.issued(coupon_id) >= requests, f"{requests} of coupon {coupon_id} issued")
    decided.check(ground, coupon_id, requests)
    return shares


def scheduled(ground: Ground, port: int, requests: int) -> Figures:
    """A burst on the replaced system."""
    coupon_id = ground.coupon(requests)
    queue_for(ground, coupon_id, requests)
    with looking(ground, "as_is", "as_is_api") as shares:
        burst(ground, port, coupon_id, requests)
    return shares


def pressed(ground: Ground, port: int, seconds: float) -> Figures:
    """Presses on our API, with the issuer behind it."""
    with looking(ground, "api") as shares:
        closed(port, ground.coupon(WITHOUT_END), seconds)
    return shares
