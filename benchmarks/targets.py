"""What the measurements are held against: figures and ratios of two, their bounds, and what is missing to them."""

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.figures import Figures, ratios


class Target(NamedTuple):
    """`over` ÷ `under`, or `over` alone; its median over the rounds must be at least, or at most, the bound if any."""

    what: str
    experiment: str
    over: str
    under: str | None
    bound: float | None = None
    unit: str = "×"
    at_most: bool = False

    def measured(self, rounds: Sequence[Figures]) -> list[float]:
        """The figure in each round."""
        return ratios(rounds, self.over, self.under)

    def missed_by(self, figure: float) -> float:
        """The part of the bound that a figure falls short of, or exceeds it by; 0 when it is reached."""
        if self.bound is None:
            return 0.0
        return max(0.0, (figure - self.bound if self.at_most else self.bound - figure) / self.bound)


PROMISED = (
    Target(
        "drain of one coupon's backlog, with outbox and offsets ÷ the bare insert limit",
        "drain",
        "ours_per_second",
        "limit_insert_per_second",
        0.6,
    ),
    Target("the same ÷ message by message", "drain", "ours_per_second", "to_be_per_second", 40),
    Target(
        "wait p50 of a burst of 1,000 on one coupon: scheduler, 5 s and chunk 100 ÷ ours",
        "small_burst",
        "as_is_wait_p50_ms",
        "ours_wait_p50_ms",
        100,
    ),
    Target(
        "wait p50 of a burst of 10,000: scheduler, 5 s and all there is ÷ ours",
        "burst",
        "as_is_wait_p50_ms",
        "ours_wait_p50_ms",
        10,
    ),
    Target(
        "accepted requests/s of one API process, not issued yet ÷ the same server answering a constant from FastAPI",
        "accept",
        "accepted_per_second",
        "constant_per_second",
        0.8,
    ),
    Target(
        "wait (accept → issued) p99 at half of capacity", "accept", "half_wait_p99_ms", None, 100, " ms", at_most=True
    ),
    Target(
        "throughput with 5 million rows ÷ with none",
        "growth",
        "rows_5000000_per_second",
        "rows_0_per_second",
        0.85,
    ),
)

ALSO = (
    Target(
        "from the first press of a burst of 1,000, p50: scheduler, 5 s and chunk 100 ÷ ours",
        "small_burst",
        "as_is_from_burst_p50_ms",
        "ours_from_burst_p50_ms",
    ),
    Target(
        "from the first press of a burst of 10,000, p50: scheduler, 5 s and all there is ÷ ours",
        "burst",
        "as_is_from_burst_p50_ms",
        "ours_from_burst_p50_ms",
    ),
    Target(
        "wait p50 of a burst of 10,000: scheduler, 0.1 s and all there is ÷ ours",
        "eager_burst",
        "as_is_wait_p50_ms",
        "ours_wait_p50_ms",
    ),
    Target(
        "from the first press of that burst, p50: the same ÷ ours",
        "eager_burst",
        "as_is_from_burst_p50_ms",
        "ours_from_burst_p50_ms",
    ),
    Target(
        "accepted requests/s of one API process, not issued yet ÷ the same server answering from a bare ASGI function",
        "accept",
        "accepted_per_second",
        "bare_per_second",
    ),
    Target(
        "accepted requests/s while they are issued ÷ the same server answering a constant from FastAPI",
        "accept",
        "while_issuing_per_second",
        "constant_per_second",
    ),
    Target("accepted by two API processes ÷ by one", "processes", "two_per_second", "one_per_second"),
    Target("issued by two issuers ÷ by one", "issuers", "two_per_second", "one_per_second"),
    Target(
        "issuing while a worker delivers its notices ÷ without notices",
        "notices",
        "delivering_per_second",
        "without_per_second",
        0.8,
    ),
    Target(
        "notices that wait after ten seconds of 3,000 requests/s ÷ those decided in a second",
        "notices",
        "paced_waiting_at_end",
        "paced_per_second",
        1,
        at_most=True,
    ),
    Target(
        "ten thousand failing requests ÷ the policy's delays",
        "retries",
        "retries_seconds",
        "policy_seconds",
        3,
        at_most=True,
    ),
    Target(
        "wait p99 of cold coupons on other partitions, beside a hot one ÷ alone",
        "coupons",
        "others_beside_wait_p99_ms",
        "others_alone_wait_p99_ms",
        2,
        at_most=True,
    ),
    Target(
        "wait p99 of cold coupons on the hot one's partition ÷ the hot one's",
        "coupons",
        "sharing_in_line_p99_ms",
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
        "updates of a coupon's counters that touch no index (HOT) ÷ all",
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
