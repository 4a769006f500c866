"""Summary in three sentences: who got a coupon, how long they waited, and how long the replaced scheduler takes."""

import math
from collections import defaultdict
from collections.abc import Iterable

from demo.result import SaleResult
from demo.system_state import RequestRow

#: the scheduler that this project replaced, as docs/benchmarks.md measures it
SCHEDULER_PERIOD_SECONDS = 5
SCHEDULER_CHUNK = 100


def sentences(result: SaleResult) -> list[str]:
    """Return the three sentences; only the first if no request was accepted."""
    winners = {row.user_id for row in result.final.rows if row.state == "issued"}
    users = {request.user_id for request in result.requests} | {result.foreign_user}
    coupons = sum(coupon.quantity for coupon in result.coupons)
    if result.replay:
        coupons += result.replay.raised.quantity - result.replay.sold_out.quantity
    first = f"{len(winners):,} of {len(users):,} users got one of the {coupons:,} coupons."
    if not result.waits:
        return [first]
    waits = result.waits
    slowest = max(waits, key=lambda request_id: waits[request_id])
    row = next(row for row in result.after_sale.rows if row.request_id == slowest)
    second = (
        f"Of the {len(waits):,} users whose request was accepted, the median user waited "
        f"{duration(percentile(waits.values(), 0.5))} for the decision; the longest wait was "
        f"{duration(waits[slowest])}{_reason(result, row)}."
    )
    return [first, second, _scheduler_sentence(result)]


def _reason(result: SaleResult, row: RequestRow) -> str:
    """Say why the slowest request took so long, as far as the demo caused it."""
    if row.user_id in result.faults:
        return ", of a user whose request was made to fail and was retried"
    if (row.request_id, "standby") in result.statuses:
        return ", of a user who was on standby behind requests that were made to fail"
    return ""


def _scheduler_sentence(result: SaleResult) -> str:
    arrivals: dict[int, list[float]] = defaultdict(list)
    for request_id in result.waits:
        answer = result.accepted[request_id]
        arrivals[answer.coupon_id].append(answer.sent_at)
    waits = [wait for queue in arrivals.values() for wait in scheduler_waits(queue)]
    median, longest = duration(percentile(waits, 0.5)), duration(max(waits))
    return (
        f"The scheduler that this project replaced would have made the same users wait {median} (median) and {longest} "
        f"(longest): computed, assuming that it issues {SCHEDULER_CHUNK} of each coupon every "
        f"{SCHEDULER_PERIOD_SECONDS} s and that nothing fails."
    )


def scheduler_waits(
    arrivals: Iterable[float], period_seconds: float = SCHEDULER_PERIOD_SECONDS, chunk: int = SCHEDULER_CHUNK
) -> list[float]:
    """Return the seconds that each request of one coupon waits for the replaced scheduler.

    It runs at each multiple of the period, as benchmarks/comparators/as_is_scheduler.py does, and issues at most
    `chunk` of the requests that have arrived. `arrivals` are seconds since 1970 UTC.
    """
    waits: list[float] = []
    run_at, left = 0.0, 0
    for arrival in sorted(arrivals):
        next_run = (math.floor(arrival / period_seconds) + 1) * period_seconds
        if next_run > run_at:
            run_at, left = next_run, chunk
        elif not left:
            run_at, left = run_at + period_seconds, chunk
        left -= 1
        waits.append(run_at - arrival)
    return waits


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return the least value that this share of the values does not exceed (nearest rank); None without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def duration(seconds: float | None) -> str:
    """Format seconds with a unit: whole milliseconds below one second, else seconds; a dash for None."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:,.0f} ms" if seconds < 0.9995 else f"{seconds:,.1f} s"
