"""What several experiments share: the type `Experiment`, drains, bursts, and the start of the comparators."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from benchmarks import decisions
from benchmarks.comparators.as_is_queue import register_coupon
from benchmarks.environment import Environment, create_closed_log
from benchmarks.figures import Figures
from benchmarks.load.coupons import create_coupon
from benchmarks.load.http_load import LoadResult, Plan, issuance_path, run_closed_model, run_load
from benchmarks.load.records import RequestRecord, append, build_records, shuffled_users
from service.stream.topics import Topic

TO_BE_TOPIC = "TO_BE"
#: of a coupon that does not sell out
UNLIMITED = 10_000_000
#: beginning of a closed-model run that does not count
WARM_UP_SECONDS = 0.5


class Experiment(NamedTuple):
    """`measure(directory, size, rounds)` yields the figures of each round; without a quick size, --quick skips it.

    With `any_commit`, the function's fourth argument is the checkout from which API and issuer run.
    """

    name: str
    description: str
    measure: Callable[..., Iterator[Figures]]
    full: Any
    quick: Any
    rounds: int
    any_commit: bool = False


def drain(
    environment: Environment,
    part: str,
    coupon_id: int,
    records: Iterable[RequestRecord],
    topic: str = Topic.ISSUE_COUPON,
) -> None:
    """Fill the topic while the consumer is suspended, then wait until the consumer has issued all records."""
    backlog = list(records)
    with environment.suspended(part):
        append(environment.stack.kafka_bootstrap_servers, backlog, topic)
    decisions.wait_for_issued(environment, coupon_id, len(backlog))


def warm_up(environment: Environment, part: str, requests: int = 3_000, topic: str = Topic.ISSUE_COUPON) -> None:
    """Let a consumer issue some requests, so that no round includes one-time costs; then delete the decisions."""
    coupon_id = environment.create_coupon(requests)
    drain(environment, part, coupon_id, build_records(coupon_id, shuffled_users(requests)), topic)
    environment.clear_decisions()


def start_to_be(environment: Environment, topic: str = TO_BE_TOPIC) -> None:
    """Start the TO-BE consumer as part `to_be`. The topic TO_BE is created for it; another must exist."""
    if topic == TO_BE_TOPIC:
        environment.create_topic(topic)
    log_id = str(_create_log_id(environment, "to_be"))
    module = "benchmarks.comparators.to_be_consumer"
    environment.start_process("to_be", module, topic, log_id, ready_message="assigned")


def start_as_is(environment: Environment, period_seconds: float, chunk: int) -> int:
    """Start the AS-IS scheduler and API as parts `as_is` and `as_is_api`; return the API's port."""
    arguments = (f"{period_seconds}", f"{chunk}", str(_create_log_id(environment, "as_is")))
    module = "benchmarks.comparators.as_is_scheduler"
    environment.start_process("as_is", module, *arguments, ready_message="waiting")
    return environment.start_server("as_is_api", "benchmarks.comparators.as_is_api", port_variable="API_PORT")


def _create_log_id(environment: Environment, name: str) -> int:
    """Return a log id for the rows of a comparator."""
    with environment.store.begin() as tx:
        return create_closed_log(tx, name)


def wait_for_phase(period_seconds: float, number: int, count: int) -> None:
    """Sleep until phase `number` of `count` phases of the scheduler's period.

    Rounds are spread evenly over the period, so that chance has no influence on the AS-IS waits.
    """
    phase = period_seconds * (number + 0.5) / count
    time.sleep((phase - time.time()) % period_seconds)


def burst(environment: Environment, port: int, coupon_id: int, requests: int, connections: int = 100) -> LoadResult:
    """Send as many requests as the coupon has, as fast as the connections allow, and wait until all are issued."""
    result = run_load(Plan(port, [issuance_path(coupon_id)], 1, requests, connections))
    decisions.wait_for_issued(environment, coupon_id, requests)
    return result


def check_as_is_refusals(environment: Environment, port: int) -> None:
    """Raise AssertionError unless the AS-IS system refuses duplicates and sold-out requests, and issues the others."""
    coupon_id = environment.create_coupon(150)
    register_coupon(environment.stack.redis_url, coupon_id, 150)
    for first_user, requests, expected in ((1, 100, 202), (1, 100, 409), (101, 50, 202), (151, 50, 409)):
        run_load(Plan(port, [issuance_path(coupon_id)], first_user, requests), expected)
    decisions.wait_for_issued(environment, coupon_id, 150)


def accept_without_issuing(environment: Environment, port: int, seconds: float, connections: int = 256) -> LoadResult:
    """Measure what an API accepts while the issuer is suspended; afterwards wait until all of it is issued."""
    coupon_id = create_coupon(port, UNLIMITED)
    with environment.suspended("issuer-0"):
        result = run_closed_model(port, coupon_id, seconds, connections)
    decisions.wait_for_issued(environment, coupon_id, len(result.due))
    return result
