"""A coupon: how many there are, when it may be asked for, and what it answers at a moment."""

from enum import StrEnum
from typing import NamedTuple

MAX_ID = 2**63 - 1
MAX_QUANTITY = 2**31 - 1


class CouponState(StrEnum):
    """What a coupon shows to users."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    PAUSED = "paused"
    SOLD_OUT = "sold_out"
    CLOSED = "closed"


class Override(StrEnum):
    """What an operator has set, over and above the window."""

    NONE = "none"
    PAUSED = "paused"
    CLOSED = "closed"


class Coupon(NamedTuple):
    """A coupon as the database has it; times are milliseconds since 1970 UTC."""

    id: int
    name: str
    #: how many may be issued; never exceeded by issued + held
    quantity: int
    #: how many users beyond the quantity the gate lets into the line
    waitlist: int
    #: requests that hold a coupon; also the last sequence given out
    issued: int
    #: seats kept for requests that are being retried
    held: int
    #: requests that wait for a held seat to be given up
    standby: int
    opens_at_ms: int | None
    closes_at_ms: int | None
    override: Override
    #: how often an operator has changed it
    version: int

    @property
    def remaining(self) -> int:
        """Seats that are neither issued nor held."""
        return self.quantity - self.issued - self.held

    def state(self, now_ms: int) -> CouponState:
        """What the coupon shows at now_ms."""
        if self.override is Override.CLOSED or (self.closes_at_ms is not None and now_ms >= self.closes_at_ms):
            return CouponState.CLOSED
        if self.override is Override.PAUSED:
            return CouponState.PAUSED
        if self.opens_at_ms is not None and now_ms < self.opens_at_ms:
            return CouponState.SCHEDULED
        return CouponState.SOLD_OUT if self.issued >= self.quantity else CouponState.OPEN
