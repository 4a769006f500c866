"""The bodies of requests and answers; one strict decoder reads them and the same types make the OpenAPI document."""

from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from service.domain.coupon import ID_MOST, QUANTITY_MOST, Coupon
from service.store.engine import milliseconds
from service.stream.codec import TIME_MOST_MS
from service.usecases.accept import Receipt
from service.usecases.lookup import Standing

Id = Annotated[int, Meta(ge=1, le=ID_MOST, description="a JSON integer from 1 to 2⁶³−1")]
Body = TypeVar("Body", bound=Struct)


class NewCoupon(Struct, frozen=True, forbid_unknown_fields=True):
    """A coupon to make."""

    name: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$(?!\n)")]
    quantity: Annotated[int, Meta(ge=1, le=QUANTITY_MOST)]
    waitlist: Annotated[int, Meta(ge=0, le=QUANTITY_MOST)] = 0
    opens_at: Annotated[datetime, Meta(tz=True)] | None = None
    closes_at: Annotated[datetime, Meta(tz=True)] | None = None

    def __post_init__(self) -> None:
        opens = None if self.opens_at is None else _storable("opens_at", self.opens_at)
        closes = None if self.closes_at is None else _storable("closes_at", self.closes_at)
        if opens is not None and closes is not None and closes <= opens:
            raise ValueError("closes_at must be after opens_at")


class NewIssuance(Struct, frozen=True, forbid_unknown_fields=True):
    """Who wants the coupon."""

    user_id: Id


class CouponView(Struct, frozen=True):
    """A coupon as users see it."""

    id: int
    name: str
    quantity: int
    waitlist: int
    issued: int
    held: int
    remaining: int
    state: str
    opens_at: datetime | None
    closes_at: datetime | None


class CouponPage(Struct, frozen=True):
    """Coupons in id order; `next` is the cursor of the page that follows, null on the last."""

    coupons: list[CouponView]
    next: str | None


class ReceiptView(Struct, frozen=True):
    """A place in line; `position` counts the records ahead in the partition, null when that is not known."""

    request_id: str
    coupon_id: int
    user_id: int
    state: str
    position: int | None


class IssuanceView(Struct, frozen=True):
    """Where a request stands."""

    request_id: str
    coupon_id: int
    user_id: int
    state: str
    code: str | None
    position: int | None
    eta_seconds: float | None
    sequence: int | None
    attempts: int
    requested_at: datetime
    decided_at: datetime | None


def decode(body: bytes, kind: type[Body]) -> Body:
    """Reads a body strictly; raises msgspec.MsgspecError or RecursionError saying what is wrong with it."""
    return msgspec.json.decode(body, type=kind)


encode = msgspec.json.Encoder().encode


def schema_of(*kinds: type[Struct]) -> dict[str, Any]:
    """The kinds' JSON Schemas for the OpenAPI document, by name."""
    _, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    return components


def coupon_view(coupon: Coupon, now_ms: int) -> CouponView:
    """A coupon as it stands at now_ms."""
    return CouponView(
        coupon.id,
        coupon.name,
        coupon.quantity,
        coupon.waitlist,
        coupon.issued,
        coupon.held,
        coupon.remaining,
        coupon.state(now_ms),
        _time(coupon.opens_at_ms),
        _time(coupon.closes_at_ms),
    )


def receipt_view(receipt: Receipt) -> ReceiptView:
    """What a 202 tells."""
    return ReceiptView(receipt.request_id, receipt.coupon_id, receipt.user_id, "queued", receipt.position)


def issuance_view(standing: Standing, position: int | None) -> IssuanceView:
    """What a request's own page tells."""
    return IssuanceView(
        standing.request_id,
        standing.coupon_id,
        standing.user_id,
        standing.state,
        standing.code,
        position,
        None,
        standing.sequence,
        standing.attempts,
        datetime.fromtimestamp(standing.requested_at_ms / 1000, UTC),
        _time(standing.decided_at_ms),
    )


def _storable(name: str, at: datetime) -> int:
    at_ms = milliseconds(at)
    if not 0 <= at_ms <= TIME_MOST_MS:
        raise ValueError(f"{name} must lie between the years 1970 and 9998")
    return at_ms


def _time(at_ms: int | None) -> datetime | None:
    return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC)
