"""Experiment `backlog`: how fast the issuer decides a backlog, by what the backlog contains, for any commit.

Coupons are created over HTTP and records are appended to Kafka, so that it can measure the issuer of any commit.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from benchmarks.checkout import WORK_TREE, Checkout
from benchmarks.environment import WEBHOOK, Environment, start_environment, wait_until
from benchmarks.experiments.common import UNLIMITED, Experiment
from benchmarks.figures import Figures, prefixed
from benchmarks.load.coupons import create_coupon
from benchmarks.load.records import RequestRecord, append, build_records, shuffled_users

_PARTS = ("issuer-0", "postgres", "kafka", "valkey")
_SOLD_OUT_COUPONS = 50
#: requests for a coupon that sells out, for each that it has
_DEMAND = 2
_ODD_EVERY = 1_000
_WARM_UP_RECORDS = 3_000
_DECIDED = "SELECT coalesce(sum(next_offset), 0)::bigint FROM offsets"
#: rows of the first commit do not count: the time that they took is unknown
_SECONDS = (
    "SELECT (extract(epoch FROM max(decided_at) - min(decided_at)) * 1000000)::bigint FROM requests"
    " WHERE coupon_id = ANY(:coupons)"
)
_AFTER_FIRST = (
    "SELECT count(*) FROM requests WHERE coupon_id = ANY(:coupons)"
    " AND decided_at > (SELECT min(decided_at) FROM requests WHERE coupon_id = ANY(:coupons))"
)


class Size(NamedTuple):
    """Records of each backlog."""

    records: int


def measure(directory: Path, size: Size, rounds: int, checkout: Checkout = WORK_TREE) -> Iterator[Figures]:
    """Yield the figures of each round: the rate and the CPU time per record of each kind of backlog."""
    with start_environment(directory, WEBHOOK, checkout) as environment:
        api = environment.start_api()
        environment.start_issuer()
        _decide(environment, list(build_records(create_coupon(api, UNLIMITED), shuffled_users(_WARM_UP_RECORDS))))
        for _ in range(rounds):
            yield {
                **prefixed("one_coupon", _measure_plain(environment, api, size.records)),
                **prefixed("sold_out", _measure_sold_out(environment, api, size.records)),
                **prefixed("odd", _measure_odd(environment, api, size.records)),
            }


def _measure_plain(environment: Environment, api: int, count: int) -> Figures:
    coupon_id = create_coupon(api, UNLIMITED)
    return _drain(environment, [coupon_id], list(build_records(coupon_id, shuffled_users(count))))


def _measure_sold_out(environment: Environment, api: int, count: int) -> Figures:
    """Measure coupons whose requests are mixed in the log, and of which half are refused."""
    requests = count // _SOLD_OUT_COUPONS
    coupon_ids = [create_coupon(api, requests // _DEMAND) for _ in range(_SOLD_OUT_COUPONS)]
    mixed = zip(*(build_records(coupon_id, shuffled_users(requests)) for coupon_id in coupon_ids), strict=True)
    return _drain(environment, coupon_ids, list(chain.from_iterable(mixed)))


def _measure_odd(environment: Environment, api: int, count: int) -> Figures:
    coupon_id = create_coupon(api, UNLIMITED)
    records = list(build_records(coupon_id, shuffled_users(count)))
    for at in range(_ODD_EVERY // 2, count, _ODD_EVERY):
        records[at] = records[at]._replace(value=b"{")
    return _drain(environment, [coupon_id], records)


def _drain(environment: Environment, coupon_ids: Sequence[int], records: Sequence[RequestRecord]) -> Figures:
    """Let the issuer decide the records; return the rate and the CPU time."""
    environment.clear_decisions()
    with environment.cpu_time(_PARTS) as cpu:
        _decide(environment, records)
    values = {"coupons": list(coupon_ids)}
    seconds = environment.query_int(_SECONDS, **values) / 1_000_000
    return {
        "per_second": environment.query_int(_AFTER_FIRST, **values) / seconds,
        **cpu.figures(len(records)),
    }


def _decide(environment: Environment, records: Sequence[RequestRecord]) -> None:
    """Append the records while the issuer is suspended, then wait until it has decided them."""
    target = environment.query_int(_DECIDED) + len(records)
    with environment.suspended("issuer-0"):
        append(environment.stack.kafka_bootstrap_servers, records)
    wait_until(lambda: environment.query_int(_DECIDED) >= target, "the backlog is decided")


EXPERIMENT = Experiment(
    name="backlog",
    description="Backlogs of one coupon, of 50 coupons that sell out, and with odd records: rate and CPU time.",
    measure=measure,
    full=Size(100_000),
    quick=Size(20_000),
    rounds=5,
    any_commit=True,
)
