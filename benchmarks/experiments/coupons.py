"""Experiment `coupons`: waits of twenty cold coupons beside a hot one, on the hot coupon's partition and on others.

Each round measures the cold coupons alone, then while another producer appends the hot coupon's requests.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import decisions
from benchmarks.environment import PARTITIONS, Environment, start_environment
from benchmarks.experiments.common import UNLIMITED, Experiment
from benchmarks.figures import Figures, in_milliseconds
from benchmarks.load.http_load import Plan, issuance_path, run_load
from benchmarks.load.records import DueTimes, append_at_rate
from service.stream.partitioner import partition_of

_COLD = 20
#: users above it fill the gate before the measurement
_WARM_UP_USER = 1_000_000
#: start of the generator process
_GENERATOR_START_SECONDS = 4.0

Waits = dict[int, list[float]]
"""Seconds that each request waited, by coupon."""


class Size(NamedTuple):
    """Requests per second on all cold coupons together and on the hot one, and seconds of each measurement."""

    cold_rate: float
    hot_rate: float
    seconds: float


def measure(directory: Path, size: Size, rounds: int, partitions: int = PARTITIONS) -> Iterator[Figures]:
    """Yield the waits of each round, on a topic with so many partitions."""
    with start_environment(directory, {"TOPIC_PARTITIONS": str(partitions)}) as environment:
        api = environment.start_api()
        environment.start_issuer()
        measure_cold(environment, api, create_coupons(environment, _COLD), Size(size.cold_rate, 0, 1))
        for _ in range(rounds):
            hot, *cold = create_coupons(environment, _COLD + 1)
            alone = measure_cold(environment, api, cold, size)
            servers, seconds = environment.stack.kafka_bootstrap_servers, size.seconds + _GENERATOR_START_SECONDS
            with append_at_rate(servers, hot, size.hot_rate, seconds) as due_times:
                beside = measure_cold(environment, api, create_coupons(environment, _COLD), size)
            hot_partition = partition_of(hot, partitions)
            sharing = {each for each in (*alone, *beside) if partition_of(each, partitions) == hot_partition}
            since_request = decisions.seconds_since_request(environment, sorted(sharing & beside.keys()), _WARM_UP_USER)
            yield {
                **by_partition(alone, "alone", sharing),
                **by_partition(beside, "beside", sharing),
                # comparable with the hot coupon's waits: both without the way to the API
                **in_milliseconds(since_request, "sharing_since_request"),
                **hot_waits(environment, hot, due_times),
            }


def create_coupons(environment: Environment, count: int) -> list[int]:
    """Create coupons that do not sell out."""
    return [environment.create_coupon(UNLIMITED) for _ in range(count)]


def measure_cold(environment: Environment, port: int, coupon_ids: Sequence[int], size: Size) -> Waits:
    """Request the coupons in turn at a constant rate. One request each fills the gate before."""
    paths = [issuance_path(coupon_id) for coupon_id in coupon_ids]
    run_load(Plan(port, paths, _WARM_UP_USER + 1, len(paths), connections=1))
    count = round(size.cold_rate * size.seconds)
    result = run_load(Plan(port, paths, 1, count, rate=size.cold_rate))
    expected = count + len(paths)
    query = f"SELECT {expected} - count(*) FROM requests WHERE state = 'issued' AND coupon_id BETWEEN {min(coupon_ids)}"
    decisions.wait_for_zero(environment, "all cold coupons' requests issued", f"{query} AND {max(coupon_ids)}")
    waits = decisions.waits(environment, coupon_ids, 1, result)
    return {coupon_id: waits[at :: len(coupon_ids)] for at, coupon_id in enumerate(coupon_ids)}


def hot_waits(environment: Environment, hot: int, due_times: DueTimes) -> dict[str, float]:
    """Return the number of requests for the hot coupon, and their waits from when each was due."""
    decisions.wait_for_issued(environment, hot, len(due_times))
    committed = decisions.commit_times(environment, [hot])
    waits = [committed[user_id] - due for user_id, due in due_times]
    return {"hot_requests": len(due_times), **in_milliseconds(waits, "hot_wait")}


def by_partition(waits: Waits, name: str, sharing: set[int]) -> dict[str, float]:
    """Return the waits of coupons on the hot coupon's partition (`sharing`) and of all others."""
    on_hot_partition = [wait for coupon_id, each in waits.items() if coupon_id in sharing for wait in each]
    on_others = [wait for coupon_id, each in waits.items() if coupon_id not in sharing for wait in each]
    return {
        **in_milliseconds(on_hot_partition, f"sharing_{name}_wait"),
        **in_milliseconds(on_others, f"others_{name}_wait"),
    }


EXPERIMENT = Experiment(
    name="coupons",
    description="One hot coupon and twenty cold ones: waits of the cold ones on the hot one's partition and on others.",
    measure=measure,
    full=Size(200, 5_000, 8),
    quick=None,
    rounds=3,
)
