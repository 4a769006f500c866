"""Bodies that request an issuance and show the state of a request."""

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from service.api.schemas.base import Count, Id, Reason, SafeId, Time
from service.domain.request import RequestState
from service.timestamps import to_datetime, to_optional_datetime
from service.usecases.accept import Receipt
from service.usecases.lookup import RequestStatus


class NewIssuance(Struct, frozen=True, forbid_unknown_fields=True):
    """A user's request for a coupon; `user_id` is required of callers without a user of their own."""

    user_id: SafeId | UnsetType = UNSET

    @property
    def user(self) -> int | None:
        """The user, if the body names one."""
        return None if self.user_id is UNSET else self.user_id


class ReceiptView(Struct, frozen=True):
    """An accepted request; `position` is the number of records ahead in its partition, null if unknown."""

    request_id: str
    coupon_id: SafeId
    user_id: SafeId
    state: Literal["queued"]
    position: Count | None


class IssuanceView(Struct, frozen=True):
    """The state of a request."""

    request_id: str
    coupon_id: Id
    user_id: Id
    state: RequestState
    code: Reason | None
    position: Count | None
    eta_seconds: float | None
    sequence: SafeId | None
    attempts: Count
    requested_at: Time
    decided_at: Time | None


def receipt_view(receipt: Receipt) -> ReceiptView:
    """Render the body of a 202."""
    return ReceiptView(receipt.request_id, receipt.coupon_id, receipt.user_id, "queued", receipt.position)


def issuance_view(status: RequestStatus, position: int | None) -> IssuanceView:
    """Render the state of a request; `position` is the number of records ahead, None if unknown."""
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
        to_datetime(status.requested_at_ms),
        to_optional_datetime(status.decided_at_ms),
    )
