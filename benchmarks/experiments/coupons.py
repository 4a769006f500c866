"""One hot coupon and twenty cold ones: what those on other partitions wait, and those that share the hot one's."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import decided
from benchmarks.experiments.acts import path
from benchmarks.figures import Figures, in_milliseconds
from benchmarks.ground import Ground, prepared
from benchmarks.load.plan import Plan
from benchmarks.load.pressing import press
from benchmarks.pacing import Appended, paced
from service.config import Settings
from service.stream.partitioner import partition_of

_PARTITIONS = Settings.model_fields["topic_partitions"].default
_COLD = 20
_SOME = 10_000_000
#: users above it warm the gate
_WARMING = 1_000_000
#: until the generator has begun
_STARTING_SECONDS = 4.0


class Size(NamedTuple):
    """Requests per second on all cold coupons together and on the hot one, and for how long."""

    cold_rate: float
    hot_rate: float
    seconds: float


FULL, QUICK = Size(200, 5_000, 8), None


def measure(directory: Path, size: Size, rounds: int, partitions: int = _PARTITIONS) -> Iterator[Figures]:
    """Each round: the cold ones alone, then beside the hot one, whose requests another producer appends."""
    with prepared(directory, {"TOPIC_PARTITIONS": str(partitions)}) as ground:
        api = ground.api()
        ground.issuer()
        cold(ground, api, coupons(ground, _COLD), Size(size.cold_rate, 0, 1))
        for _ in range(rounds):
            hot, *others = coupons(ground, _COLD + 1)
            alone = cold(ground, api, others, size)
            with paced(ground, hot, size.hot_rate, size.seconds + _STARTING_SECONDS) as appended:
                beside = cold(ground, api, coupons(ground, _COLD), size)
            sharing = on_the_same(hot, [*alone, *beside], partitions)
            found = by_partition(alone, "alone", sharing) | by_partition(beside, "beside", sharing)
            yield found | in_line(ground, sharing & beside.keys()) | heat(ground, hot, appended)


Waits = dict[int, list[float]]
"""Seconds that each request waited, by coupon."""


def coupons(ground: Ground, count: int) -> list[int]:
    """New coupons of which there are enough for everyone."""
    return [ground.coupon(_SOME) for _ in range(count)]


def cold(ground: Ground, port: int, coupon_ids: Sequence[int], size: Size) -> Waits:
    """Presses for every coupon in turn, at a constant rate; the gate has been filled with each before."""
    paths = [path(each) for each in coupon_ids]
    press(Plan(port, paths, _WARMING + 1, len(paths), connections=1))
    count = round(size.cold_rate * size.seconds)
    pressed = press(Plan(port, paths, 1, count, rate=size.cold_rate))
    wanted = count + len(paths)
    query = f"SELECT {wanted} - count(*) FROM requests WHERE state = 'issued' AND coupon_id BETWEEN {min(coupon_ids)}"
    decided.await_none(ground, "the cold ones issued", f"{query} AND {max(coupon_ids)}")
    waits = decided.waits(ground, coupon_ids, 1, pressed)
    return {each: waits[at :: len(coupon_ids)] for at, each in enumerate(coupon_ids)}


def on_the_same(hot: int, coupon_ids: Iterable[int], partitions: int) -> set[int]:
    """Those of the coupons that share the hot one's partition."""
    return {each for each in coupon_ids if partition_of(each, partitions) == partition_of(hot, partitions)}


def in_line(ground: Ground, sharing: Iterable[int]) -> dict[str, float]:
    """What those on the hot one's partition waited as the hot one's did: without the way to the API."""
    return in_milliseconds(decided.in_line(ground, sorted(sharing), _WARMING), "sharing_in_line")


def heat(ground: Ground, hot: int, appended: Appended) -> dict[str, float]:
    """How many requests the hot one had in the end, and what they waited since they were due."""
    decided.await_issued(ground, hot, len(appended))
    committed = decided.committed(ground, [hot])
    waits = [committed[user_id] - at for user_id, at in appended]
    return {"hot_requests": len(appended), **in_milliseconds(waits, "hot_wait")}


def by_partition(waits: Waits, name: str, sharing: set[int]) -> dict[str, float]:
    """Waits of those on the hot one's partition, and of the others."""
    near = [wait for each, some in waits.items() if each in sharing for wait in some]
    far = [wait for each, some in waits.items() if each not in sharing for wait in some]
    return in_milliseconds(near, f"sharing_{name}_wait") | in_milliseconds(far, f"others_{name}_wait")
