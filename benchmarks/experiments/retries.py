"""Experiment `retries`: the time until requests that always fail are dead, beside the sum of the policy's delays."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.environment import start_environment
from benchmarks.experiments.common import Experiment, warm_up
from benchmarks.figures import Figures
from benchmarks.load.records import append, build_records, shuffled_users
from service.domain.retry import ISSUE_RETRY_POLICY

#: fault header: SQLSTATE 22012 (division by zero) in each of nine attempts, more than the policy makes
_FAILS_ALWAYS = "22012 9"
_TIMEOUT_SECONDS = 120.0
_POLL_SECONDS = 0.1
_POLICY_SECONDS = sum(
    ISSUE_RETRY_POLICY.delay_after(attempt) or 0.0 for attempt in range(1, ISSUE_RETRY_POLICY.attempts)
)


class Size(NamedTuple):
    """Requests that fail."""

    requests: int


def measure(directory: Path, size: Size, rounds: int) -> Iterator[Figures]:
    """Yield the seconds from when the issuer may read the requests; stop after a round that exceeds the timeout."""
    with start_environment(directory, {"FAULT_INJECTION": "true"}) as environment:
        environment.start_issuer()
        environment.start_worker()
        warm_up(environment, "issuer-0")
        for _ in range(rounds):
            coupon_id = environment.create_coupon(size.requests)
            records = list(build_records(coupon_id, shuffled_users(size.requests), _FAILS_ALWAYS))
            environment.clear_decisions()
            with environment.suspended("issuer-0"):
                append(environment.stack.kafka_bootstrap_servers, records)
            began = time.monotonic()
            query = f"SELECT {size.requests} - count(*) FROM requests WHERE state = 'dead' AND coupon_id = {coupon_id}"
            while (left := environment.query_int(query)) and time.monotonic() < began + _TIMEOUT_SECONDS:
                time.sleep(_POLL_SECONDS)
            seconds = time.monotonic() - began
            yield {"retries_seconds": seconds, "retries_left": left, "policy_seconds": _POLICY_SECONDS}
            if left:
                return


EXPERIMENT = Experiment(
    name="retries",
    description="Ten thousand requests that always fail: seconds until all are dead, beside the policy's delays.",
    measure=measure,
    full=Size(10_000),
    quick=None,
    rounds=3,
)
