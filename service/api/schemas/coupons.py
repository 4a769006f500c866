"""Bodies that create, change and show coupons."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from service.api.schemas.base import Count, SafeId, Time
from service.domain.coupon import Coupon, CouponState, Override
from service.domain.coupon_name import NAME_PATTERN, name_fault, normalize_name
from service.limits import MAX_NAME_LENGTH, MAX_QUANTITY
from service.timestamps import to_datetime, to_milliseconds, to_optional_datetime, to_storable_milliseconds

_Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_NAME_LENGTH,
        description="at least one character that can be seen; no control characters, separators of lines and"
        " paragraphs, or characters that embed, override or isolate a direction of text",
        extra_json_schema={"pattern": NAME_PATTERN},
    ),
]


class NewCoupon(Struct, frozen=True, forbid_unknown_fields=True):
    """A coupon to create."""

    name: _Name
    quantity: Annotated[int, Meta(ge=1, le=MAX_QUANTITY)]
    waitlist: Annotated[int, Meta(ge=0, le=MAX_QUANTITY)] = 0
    opens_at: Time | None = None
    closes_at: Time | None = None

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "name", normalize_name(self.name))
        if fault := name_fault(self.name):
            raise ValueError(fault)
        opens = None if self.opens_at is None else to_storable_milliseconds("opens_at", self.opens_at)
        closes = None if self.closes_at is None else to_storable_milliseconds("closes_at", self.closes_at)
        if opens is not None and closes is not None and closes <= opens:
            raise ValueError("closes_at must be after opens_at")


class CouponPatch(Struct, frozen=True, forbid_unknown_fields=True):
    """New values of a coupon. A field that is absent stays as it is; null removes opens_at or closes_at."""

    name: _Name | UnsetType = UNSET
    quantity: Annotated[int, Meta(ge=1, le=MAX_QUANTITY)] | UnsetType = UNSET
    waitlist: Annotated[int, Meta(ge=0, le=MAX_QUANTITY)] | UnsetType = UNSET
    opens_at: Time | UnsetType | None = UNSET
    closes_at: Time | UnsetType | None = UNSET
    state: Literal["paused", "open", "closed"] | UnsetType = UNSET
    archived: bool | UnsetType = UNSET

    def __post_init__(self) -> None:
        if self.name is not UNSET:
            msgspec.structs.force_setattr(self, "name", normalize_name(self.name))
            if fault := name_fault(self.name):
                raise ValueError(fault)
        for name in ("opens_at", "closes_at"):
            if isinstance(at := getattr(self, name), datetime):
                to_storable_milliseconds(name, at)


_OVERRIDES = {"paused": Override.PAUSED, "open": Override.NONE, "closed": Override.CLOSED}


def changes_of(body: CouponPatch, now_ms: int) -> dict[str, Any]:
    """Return the new values that the body contains, by field of Coupon."""
    changes = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    for name in ("opens_at", "closes_at"):
        if name in changes:
            at = changes.pop(name)
            changes[f"{name}_ms"] = None if at is None else to_milliseconds(at)
    if "state" in changes:
        changes["override"] = _OVERRIDES[changes.pop("state")]
    if "archived" in changes:
        changes["archived_at_ms"] = now_ms if changes.pop("archived") else None
    return changes


class ArchivedChoice(StrEnum):
    """Whether a list shows archived coupons."""

    #: only those that are not archived
    FALSE = "false"
    #: only those that are
    TRUE = "true"
    ALL = "all"


ARCHIVED = {ArchivedChoice.FALSE: False, ArchivedChoice.TRUE: True, ArchivedChoice.ALL: None}
"""CouponFilter.archived for each choice."""


class CouponView(Struct, frozen=True):
    """A coupon with its counters and its state at the time of the response.

    `updated_at` is when an operator last changed it, `archived_at` since when lists leave it out.
    """

    id: SafeId
    name: str
    quantity: Count
    waitlist: Count
    issued: Count
    held: Count
    standby: Count
    remaining: Count
    state: CouponState
    opens_at: Time | None
    closes_at: Time | None
    created_at: Time
    updated_at: Time
    archived_at: Time | None


class CouponPage(Struct, frozen=True):
    """Coupons in id order; `next` is the cursor of the next page, null on the last."""

    coupons: list[CouponView]
    next: str | None


def coupon_view(coupon: Coupon, now_ms: int) -> CouponView:
    """Render a coupon with its state at now_ms."""
    return CouponView(
        coupon.id,
        coupon.name,
        coupon.quantity,
        coupon.waitlist,
        coupon.issued,
        coupon.held,
        coupon.standby,
        coupon.remaining,
        coupon.state(now_ms),
        to_optional_datetime(coupon.opens_at_ms),
        to_optional_datetime(coupon.closes_at_ms),
        to_datetime(coupon.created_at_ms),
        to_datetime(coupon.updated_at_ms),
        to_optional_datetime(coupon.archived_at_ms),
    )
