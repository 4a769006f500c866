"""One issuer and two of them on all partitions: what the second one adds."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks import decided
from benchmarks.experiments.acts import held_back, warm
from benchmarks.figures import Figures
from benchmarks.ground import WEBHOOK, Ground, prepared
from benchmarks.records import append, minted, shuffled

_COUPONS = 12
_FIRST, _SECOND = "issuer-0", "issuer-1"


class Size(NamedTuple):
    """Requests of a round, over all coupons."""

    requests: int


FULL, QUICK = Size(120_000), None


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """The rounds of one issuer come first: were the second to go, its partitions would have to be given back."""
    with prepared(directory, WEBHOOK) as ground:
        ground.issuer(_FIRST)
        warm(ground, _FIRST, size.requests // _COUPONS)
        alone = [drained(ground, [_FIRST], size.requests) for _ in range(rounds)]
        ground.issuer(_SECOND)
        warm(ground, _SECOND)
        both = [drained(ground, [_FIRST, _SECOND], size.requests) for _ in range(rounds)]
    for one, two in zip(alone, both, strict=True):
        yield {"one_per_second": one, "two_per_second": two}


def drained(ground: Ground, issuers: Sequence[str], requests: int) -> float:
    """Requests per second that these issue of a backlog spread over coupons of every partition."""
    each = requests // _COUPONS
    coupon_ids = [ground.coupon(each) for _ in range(_COUPONS)]
    asked = [list(minted(coupon_id, shuffled(each))) for coupon_id in coupon_ids]
    ground.clear()
    with ExitStack() as held:
        for issuer in issuers:
            held.enter_context(held_back(ground, issuer))
        append(ground.stack.kafka_bootstrap_servers, [one for turn in zip(*asked, strict=True) for one in turn])
    for coupon_id in coupon_ids:
        decided.await_issued(ground, coupon_id, each)
    return decided.rate(ground, *coupon_ids)
