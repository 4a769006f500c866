"""Body of a coupon report."""

from msgspec import Struct

from service.api.schemas.base import Count, Reason, SafeId, Time
from service.domain.coupon_report import CouponReport


class PeriodView(Struct, frozen=True):
    """The first and the last time of several events."""

    first: Time
    last: Time


class SellOutView(Struct, frozen=True):
    """When the last seat of the present quantity was issued, and how long that took."""

    #: the opening of the window, or the first accepted request if there was no opening before the first issuance
    since: Time
    at: Time
    seconds: float


class WaitsView(Struct, frozen=True):
    """Milliseconds from the request to its final state: exact percentiles of the accepted requests that have one."""

    p50: Count
    p90: Count
    p99: Count
    max: Count


class SeriesPointView(Struct, frozen=True):
    """Accepted requests that were sent in a bin, and requests that were issued or refused in it."""

    at: Time
    requested: Count
    issued: Count
    refused: Count


class SeriesView(Struct, frozen=True):
    """At most 1,000 points in order of time. A bin without events has no point."""

    bin_seconds: Count
    points: list[SeriesPointView]


class CouponReportView(Struct, frozen=True):
    """How a coupon was sold, by the requests that have been decided.

    `accepted` and `foreign` together are the sum of all states. docs/coupon-report.md says what each number counts.
    """

    coupon_id: SafeId
    as_of: Time
    quantity: Count
    accepted: Count
    foreign: Count
    issued: Count
    refused: dict[Reason, Count]
    dead: dict[Reason, Count]
    held: Count
    standby: Count
    undecided_at_most: Count | None
    #: when accepted requests were sent
    requested: PeriodView | None
    #: when requests were issued
    issuings: PeriodView | None
    sell_out: SellOutView | None
    waits_ms: WaitsView | None
    series: SeriesView


def coupon_report_view(report: CouponReport) -> CouponReportView:
    """Render a report."""
    counts, sell_out, waits = report.counts, report.sell_out, report.waits_ms
    return CouponReportView(
        report.coupon.id,
        report.as_of,
        report.coupon.quantity,
        counts.accepted,
        counts.foreign,
        counts.issued,
        {code.value: count for code, count in counts.refused.items()},
        {code.value: count for code, count in counts.dead.items()},
        counts.held,
        counts.standby,
        report.undecided_at_most,
        counts.requested and PeriodView(*counts.requested),
        counts.issuings and PeriodView(*counts.issuings),
        sell_out and SellOutView(*sell_out),
        waits and WaitsView(*waits),
        SeriesView(report.series.bin_seconds, [SeriesPointView(*point) for point in report.series.points]),
    )
