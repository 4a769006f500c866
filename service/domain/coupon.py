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


class CouponChange(NamedTuple):
    """A coupon's new values and the first record that is decided by them."""

    coupon: Coupon
    log_id: int
    #: records of the coupon's partition from this position on are decided by the new values
    effective_from: LogPosition
    changed_by: str


def apply_change(coupon: Coupon, values: dict[str, Any]) -> Coupon:
    """Return the locked coupon with new values; its version grows by one if anything differs.

    `values` are fields of Coupon. Raises Conflict if the values contradict each other or what was issued.
    """
    new = coupon._replace(**values)
    if new.remaining < 0:
        raise Conflict(
            ErrorCode.QUANTITY_BELOW_LIVE,
            f"{coupon.issued} coupons are issued and {coupon.held} seats are held. Set the quantity to"
            f" {coupon.issued + coupon.held} or more.",
        )
    if new.opens_at_ms is not None and new.closes_at_ms is not None and new.closes_at_ms <= new.opens_at_ms:
        raise Conflict(ErrorCode.WINDOW, "The value of closes_at must be after opens_at.")
    return new if new == coupon else new._replace(version=coupon.version + 1)
