"""A coupon: how many there are, when it can be requested, and how an operator changes it."""

from enum import StrEnum
from typing import Any, NamedTuple

from service.domain.error_code import ErrorCode
from service.domain.errors import Conflict
from service.domain.request import LogPosition


class CouponState(StrEnum):
    """The state of a coupon that users see."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    PAUSED = "paused"
    SOLD_OUT = "sold_out"
    CLOSED = "closed"


class Override(StrEnum):
    """The state that an operator has set, which takes precedence over the window."""

    NONE = "none"
    PAUSED = "paused"
    CLOSED = "closed"


class Coupon(NamedTuple):
    """A coupon as stored in the database; times are milliseconds since 1970 UTC."""

    id: int
    name: str
    #: how many can be issued; issued + held never exceeds it
    quantity: int
    #: how many users beyond the quantity the gate admits
    waitlist: int
    #: number of issued requests; also the last sequence assigned
    issued: int
    #: seats kept for requests that are being retried
    held: int
    #: number of requests on standby
    standby: int
    opens_at_ms: int | None
    closes_at_ms: int | None
    override: Override
    #: number of changes by an operator
    version: int
    created_at_ms: int
    #: when an operator last changed it
    updated_at_ms: int
    #: since when lists leave it out; None: they show it
    archived_at_ms: int | None = None

    @property
    def remaining(self) -> int:
        """Seats that are neither issued nor held."""
        return self.quantity - self.issued - self.held

    def state(self, now_ms: int) -> CouponState:
        """Return the state at now_ms."""
        if self.override is Override.CLOSED or (self.closes_at_ms is not None and now_ms >= self.closes_at_ms):
            return CouponState.CLOSED
        if self.override is Override.PAUSED:
            return CouponState.PAUSED
        if self.opens_at_ms is not None and now_ms < self.opens_at_ms:
            return CouponState.SCHEDULED
        return CouponState.SOLD_OUT if self.issued >= self.quantity else CouponState.OPEN


class CouponFilter(NamedTuple):
    """Which coupons a list shows; None: any."""

    #: a part of the name, in upper or lower case
    name: str | None = None
    #: the state at `at_ms`
    state: CouponState | None = None
    archived: bool | None = None
    at_ms: int = 0


class CouponChange(NamedTuple):
    """A coupon's new values and the first record that is decided by them."""

    coupon: Coupon
    log_id: int
    #: records of the coupon's partition from this position on are decided by the new values
    effective_from: LogPosition
    changed_by: str


def apply_change(coupon: Coupon, values: dict[str, Any]) -> Coupon:
    """Return the locked coupon with new values; its version grows by one if anything differs.

    `values` are fields of Coupon. Raises Conflict if the values contradict each other or what was issued. A coupon that
    is archived again stays archived since the first time. An archived coupon is closed, so that no list leaves out one
    that can be requested.
    """
    new = coupon._replace(**values)
    if coupon.archived_at_ms is not None and new.archived_at_ms is not None:
        new = new._replace(archived_at_ms=coupon.archived_at_ms)
    if new.remaining < 0:
        raise Conflict(
            ErrorCode.QUANTITY_BELOW_LIVE,
            f"{coupon.issued} coupons are issued and {coupon.held} seats are held. Set the quantity to"
            f" {coupon.issued + coupon.held} or more.",
        )
    if new.opens_at_ms is not None and new.closes_at_ms is not None and new.closes_at_ms <= new.opens_at_ms:
        raise Conflict(ErrorCode.WINDOW, "The value of closes_at must be after opens_at.")
    if new.archived_at_ms is not None and new.state(new.archived_at_ms) is not CouponState.CLOSED:
        raise Conflict(
            ErrorCode.NOT_CLOSED,
            "Only a closed coupon can be archived, and it cannot be opened while it is. Close it first, or set archived"
            " to false.",
        )
    return new if new == coupon else new._replace(version=coupon.version + 1)
