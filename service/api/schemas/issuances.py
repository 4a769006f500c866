"""Issuances: to ask for, and where they stand."""

from datetime import UTC, datetime

from msgspec import Struct

from service.api.schemas.base import Id, to_datetime
from service.usecases.accept import Receipt
from service.usecases.lookup import RequestStatus


class NewIssuance(Struct, frozen=True, forbid_unknown_fields=True):
    """Who wants the coupon."""

    user_id: Id


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


def receipt_view(receipt: Receipt) -> ReceiptView:
    """What a 202 tells."""
    return ReceiptView(receipt.request_id, receipt.coupon_id, receipt.user_id, "queued", receipt.position)


def issuance_view(status: RequestStatus, position: int | None) -> IssuanceView:
    """What a request's own page tells."""
    return IssuanceView(
        status.request_id,
        status.coupon_id,
        status.user_id,
        status.state,
        status.code,
        position,
        None,
        status.sequence,
        status.attempts,
        datetime.fromtimestamp(status.requested_at_ms / 1000, UTC),
        to_datetime(status.decided_at_ms),
    )
