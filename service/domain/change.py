"""What an operator may change about a coupon, and from where in the log it counts."""

from typing import Any, NamedTuple

from service.domain.coupon import Coupon
from service.domain.errors import Conflict
from service.domain.request import LogPosition


class CouponChange(NamedTuple):
    """A coupon's new values, as recorded beside the first record that is decided by them."""

    coupon: Coupon
    log_id: int
    #: every record of the coupon's partition from here on is decided by the new values
    effective_from: LogPosition


def apply_change(coupon: Coupon, values: dict[str, Any]) -> Coupon:
    """The locked coupon with new values, one version on unless nothing differs.

    Raises Conflict where they do not fit what is there.
    """
    new = coupon._replace(**values)
    if new.remaining < 0:
        raise Conflict(
            "quantity_below_live", f"{coupon.issued} are issued and {coupon.held} held: quantity cannot be less"
        )
    if new.opens_at_ms is not None and new.closes_at_ms is not None and new.closes_at_ms <= new.opens_at_ms:
        raise Conflict("window", "closes_at would not be after opens_at")
    return new if new == coupon else new._replace(version=coupon.version + 1)
