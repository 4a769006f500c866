"""What a coupon report says about a coupon: how many requests ended how, when, and how long they waited."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from service.domain.coupon import Coupon
from service.domain.request import ReasonCode
from service.limits import MAX_REPORT_POINTS

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
#: the widths that a bin of the series may have; the last one suffices for all times that the database stores
_BIN_SECONDS = (
    1, 2, 5, 10, 15, 30,
    _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE,
    _HOUR, 2 * _HOUR, 6 * _HOUR, 12 * _HOUR,
    _DAY, 7 * _DAY, 30 * _DAY, 365 * _DAY, 3_650 * _DAY,
)  # fmt: skip


class Period(NamedTuple):
    """The first and the last time of several events."""

    first: datetime
    last: datetime


class RequestCounts(NamedTuple):
    """How many requests of a coupon have a row, and when something happened to them; None: it never did."""

    #: with a request id that this service minted: they passed the gate
    accepted: int
    #: of other producers
    foreign: int
    issued: int
    refused: Mapping[ReasonCode, int]
    dead: Mapping[ReasonCode, int]
    held: int
    standby: int
    #: when accepted requests were sent; a foreign request has a time that its producer chose
    requested: Period | None
    #: when requests were issued
    issuings: Period | None
    #: all events of the series
    events: Period | None


class Waits(NamedTuple):
    """Milliseconds from the request to its final state; a percentile is the wait of a request, not interpolated."""

    p50: int
    p90: int
    p99: int
    max: int


class SellOut(NamedTuple):
    """From when to when a coupon was sold until no seat was left."""

    since: datetime
    at: datetime
    seconds: float


class SeriesPoint(NamedTuple):
    """What happened in one bin of the series, which begins at `at`."""

    at: datetime
    #: accepted requests that were sent
    requested: int
    issued: int
    refused: int


class Series(NamedTuple):
    """Points in order of time; a bin without one had no event."""

    bin_seconds: int
    points: list[SeriesPoint]


class CouponReport(NamedTuple):
    """A coupon's requests at one moment."""

    coupon: Coupon
    as_of: datetime
    counts: RequestCounts
    #: records of the coupon's partition that were not decided, those of other coupons included; None: not known
    undecided_at_most: int | None
    sell_out: SellOut | None
    #: None: no accepted request has a final state
    waits_ms: Waits | None
    series: Series


def bin_seconds(events: Period) -> int:
    """Return the least width of bins of which MAX_REPORT_POINTS cover the period."""
    seconds = (events.last - events.first).total_seconds()
    return next(width for width in _BIN_SECONDS if seconds / width + 2 <= MAX_REPORT_POINTS)


def find_sell_out(coupon: Coupon, opened_at: datetime | None, counts: RequestCounts) -> SellOut | None:
    """Return when the last seat of the present quantity was issued, or None while there are seats.

    It is counted from the opening, or from the first accepted request if there is no opening before the first issuance:
    the window may have been moved since. None also if neither is known, or the first accepted request came after the
    last issuance: all seats went to foreign requests.
    """
    if counts.issuings is None or counts.issued < coupon.quantity:
        return None
    since = counts.requested and counts.requested.first
    if opened_at is not None and opened_at <= counts.issuings.first:
        since = opened_at
    at = counts.issuings.last
    return None if since is None or since > at else SellOut(since, at, (at - since).total_seconds())
