"""Targets: figures and ratios of two figures, their bounds, and by how much a bound is missed."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.figures import Figures, ratios


class Target(NamedTuple):
    """A ratio `numerator` ÷ `denominator`, or the figure `numerator` alone.

    Its median over the rounds must be at least the bound, or at most the bound with `at_most`. A target without a bound
    is shown only.
    """

    description: str
    experiment: str
    numerator: str
    denominator: str | None
    bound: float | None = None
    unit: str = "×"
    at_most: bool = False

    def measured(self, rounds: Sequence[Figures]) -> list[float]:
        """Return the figure of each round that has it."""
        return ratios(rounds, self.numerator, self.denominator)

    def missed_by(self, value: float) -> float:
        """Return the share of the bound by which a value misses it; 0 if it is reached."""
        if self.bound is None:
            return 0.0
        return max(0.0, (value - self.bound if self.at_most else self.bound - value) / self.bound)


PRIMARY = (
    Target(
        "issue rate on one coupon's backlog, with outbox rows and offsets ÷ PostgreSQL's insert limit",
        "drain",
        "ours_per_second",
        "limit_insert_per_second",
        0.6,
    ),
    Target("the same issue rate ÷ the TO-BE consumer's", "drain", "ours_per_second", "to_be_per_second", 40),
    Target(
        "wait p50 of a burst of 1,000 on one coupon: scheduler, 5 s and chunk 100 ÷ this project",
        "small_burst",
        "as_is_wait_p50_ms",
        "ours_wait_p50_ms",
        100,
    ),
    Target(
        "wait p50 of a burst of 10,000: scheduler, 5 s and whole queue ÷ this project",
        "burst",
        "as_is_wait_p50_ms",
        "ours_wait_p50_ms",
        10,
    ),
    Target(
        "accepted requests/s of one API process, issuer suspended ÷ a constant response from FastAPI, same server",
        "accept",
        "accepted_per_second",
        "constant_per_second",
        0.8,
    ),
    Target(
        "wait (request due → issued) p99 at half of capacity",
        "accept",
        "half_wait_p99_ms",
        None,
        100,
        " ms",
        at_most=True,
    ),
    Target(
        "issue rate with 5 million rows ÷ with none",
        "growth",
        "rows_5000000_per_second",
        "rows_0_per_second",
        0.85,
    ),
)

SECONDARY = (
    Target(
        "wait p50 from the first request of a burst of 1,000: scheduler, 5 s and chunk 100 ÷ this project",
        "small_burst",
        "as_is_from_burst_p50_ms",
        "ours_from_burst_p50_ms",
    ),
    Target(
        "wait p50 from the first request of a burst of 10,000: scheduler, 5 s and whole queue ÷ this project",
        "burst",
        "as_is_from_burst_p50_ms",
        "ours_from_burst_p50_ms",
    ),
    Target(
        "wait p50 of a burst of 10,000: scheduler, 0.1 s and whole queue ÷ this project",
        "eager_burst",
        "as_is_wait_p50_ms",
        "ours_wait_p50_ms",
    ),
    Target(
        "wait p50 from the first request of that burst: the same scheduler ÷ this project",
        "eager_burst",
        "as_is_from_burst_p50_ms",
        "ours_from_burst_p50_ms",
    ),
    Target(
        "accepted requests/s of one API process, issuer suspended ÷ a bare ASGI function, same server",
        "accept",
        "accepted_per_second",
        "bare_per_second",
    ),
    Target(
        "accepted requests/s while they are issued ÷ a constant response from FastAPI, same server",
        "accept",
        "while_issuing_per_second",
        "constant_per_second",
    ),
    Target(
        "API CPU time of a request with all headers of real clients, in two segments ÷ of a plain one",
        "request_cost",
        "together_api_cpu_us",
        "plain_api_cpu_us",
        1.25,
        at_most=True,
    ),
    Target(
        "accepted requests/s with a ticket of each user ÷ without authentication, both without rate limits",
        "authentication",
        "accepted_ticket_per_second",
        "accepted_none_per_second",
        0.95,
    ),
    Target(
        "accepted requests/s with a ticket of each user and rate limits ÷ without authentication and limits",
        "authentication",
        "accepted_limited_ticket_per_second",
        "accepted_none_per_second",
        0.9,
    ),
    Target(
        "accepted requests/s with a token (RS256) of each user ÷ without authentication, both without rate limits",
        "authentication",
        "accepted_token_per_second",
        "accepted_none_per_second",
    ),
    Target(
        "API CPU time of a duplicate with a token (RS256) ÷ without authentication",
        "authentication",
        "repeated_token_cpu_us",
        "repeated_none_cpu_us",
    ),
    Target(
        "API CPU time of a request that is refused as sold out ÷ of an accepted one",
        "request_cost",
        "sold_out_api_cpu_us",
        "at_64_api_cpu_us",
    ),
    Target(
        "CPU time of all parts for an unknown coupon's id that was never seen ÷ for a sold-out coupon's",
        "request_cost",
        "unknown_new_all_cpu_us",
        "sold_out_all_cpu_us",
    ),
    Target(
        "memory of the API for a connection with 256 kB of headers and no end",
        "memory",
        "endless_head_connection_kb",
        None,
        64,
        " kB",
        at_most=True,
    ),
    Target(
        "memory of the API for a connection that sends nothing",
        "memory",
        "silent_connection_kb",
        None,
        64,
        " kB",
        at_most=True,
    ),
    Target(
        "response p99 beside 300 slow, silent and half-closed connections ÷ without them",
        "hostile",
        "beside_response_p99_ms",
        "without_response_p99_ms",
        1.5,
        at_most=True,
    ),
    Target(
        "response p99 beside 2,000 listeners and 2,000 pollers ÷ without them",
        "waiting",
        "beside_response_p99_ms",
        "without_response_p99_ms",
        2,
        at_most=True,
    ),
    Target("CPU time of the API for one event to a listener", "waiting", "event_api_cpu_us", None, unit=" µs"),
    Target(
        "memory of the API for a listener",
        "waiting",
        "listener_api_kb",
        None,
        unit=" kB",
    ),
    Target(
        "accepted requests/s while they are issued: with metrics, a scrape every 3 s and alerts ÷ without",
        "observation",
        "observed_accepted_per_second",
        "unobserved_accepted_per_second",
        0.97,
    ),
    Target(
        "issue rate on a backlog: with metrics, a scrape every 3 s and alerts ÷ without",
        "observation",
        "observed_drained_per_second",
        "unobserved_drained_per_second",
        0.97,
    ),
    Target(
        "cores that five open dashboards take, of all parts together",
        "observation",
        "dashboards_more_cores",
        None,
        0.02,
        "",
        at_most=True,
    ),
    Target(
        "accepted by two API processes ÷ by one, issuer suspended",
        "processes",
        "two_per_second",
        "one_per_second",
    ),
    Target(
        "accepted by two API processes ÷ by one, while issuing",
        "processes",
        "two_issuing_per_second",
        "one_issuing_per_second",
    ),
    Target(
        "decided/s with one unreadable record in 1,000 ÷ without",
        "backlog",
        "odd_per_second",
        "one_coupon_per_second",
        0.8,
    ),
    Target(
        "decided/s over 50 coupons that sell out ÷ of one coupon that does not",
        "backlog",
        "sold_out_per_second",
        "one_coupon_per_second",
    ),
    Target("issued by two issuers ÷ by one", "issuers", "two_per_second", "one_per_second"),
    Target(
        "issue rate while a worker delivers the notices ÷ without notices",
        "notices",
        "delivering_per_second",
        "without_per_second",
        0.8,
    ),
    Target(
        "pending notices after ten seconds of 3,000 requests/s ÷ decisions per second",
        "notices",
        "paced_waiting_at_end",
        "paced_per_second",
        1,
        at_most=True,
    ),
    Target(
        "seconds until ten thousand failing requests are dead ÷ the retry policy's delays",
        "retries",
        "retries_seconds",
        "policy_seconds",
        3,
        at_most=True,
    ),
    Target(
        "wait p99 of cold coupons on other partitions: beside a hot coupon ÷ alone",
        "coupons",
        "others_beside_wait_p99_ms",
        "others_alone_wait_p99_ms",
        2,
        at_most=True,
    ),
    Target(
        "wait p99 of cold coupons on the hot coupon's partition ÷ the hot coupon's",
        "coupons",
        "sharing_since_request_p99_ms",
        "hot_wait_p99_ms",
        1,
        at_most=True,
    ),
    Target(
        "memory of the issuer after all drains, a million messages in a full run, ÷ before",
        "growth",
        "resident_mb_after",
        "resident_mb_before",
        1.1,
        at_most=True,
    ),
    Target(
        "updates of a coupon's counters that change no index (HOT) ÷ all",
        "growth",
        "coupons_updates_hot",
        "coupons_updates",
        0.95,
    ),
    Target(
        "look-up with 5 million rows ÷ with none",
        "growth",
        "rows_5000000_look_up_ms",
        "rows_0_look_up_ms",
        1.5,
        at_most=True,
    ),
)
