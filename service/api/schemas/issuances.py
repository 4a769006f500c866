"""Bodies that request an issuance and show the state of a request."""

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from service.api.schemas.base import Count, Id, Reason, SafeId, Time
from service.clock import jitter
from service.domain.request import RequestState
from service.domain.waiting import Outlook, Prospect, outlook_of, refresh_after_seconds
from service.timestamps import to_datetime, to_optional_datetime
from service.usecases.accept import Receipt
from service.usecases.progress_watch import IssuanceStatus, PartitionProgress
from service.usecases.user_requests import UserRequest


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


class WaitView(Struct, frozen=True):
    """Seconds until the decision, at least and at most, if the partition goes on as in the last seconds."""

    min: Count
    max: Count


class IssuanceView(Struct, frozen=True):
    """The state of a request.

    `partition` and `offset` are those of its record; the offset is null while it is not known. `position` is the number
    of records ahead in the partition, other coupons' included. It is null if unknown and never grows. `outlook` is null
    if it is not known whether the request will be issued. Ask again after `refresh_after_seconds`; null: never.
    """

    request_id: str
    coupon_id: Id
    user_id: Id
    state: RequestState
    code: Reason | None
    partition: Count
    offset: Count | None
    position: Count | None
    eta_seconds: WaitView | None
    outlook: Outlook | None
    refresh_after_seconds: Annotated[int, Meta(ge=1, le=30)] | None
    sequence: SafeId | None
    attempts: Count
    requested_at: Time
    decided_at: Time | None


class UserIssuanceView(IssuanceView, frozen=True):
    """A request in the list of its user, with the name of its coupon."""

    coupon_name: str


class UserIssuancePage(Struct, frozen=True):
    """Requests of a user, newest first; `next` is the cursor of the next page, null on the last."""

    issuances: list[UserIssuanceView]
    next: str | None


class RateView(Struct, frozen=True):
    """Records that the partition decides per second, at least and at most."""

    min: float
    max: float


class ProgressView(Struct, frozen=True):
    """How far a partition is decided: a request whose offset is smaller than `next_offset` is decided."""

    partition: Count
    next_offset: Count
    records_per_second: RateView | None


def receipt_view(receipt: Receipt) -> ReceiptView:
    """Render the body of a 202."""
    return ReceiptView(receipt.request_id, receipt.coupon_id, receipt.user_id, "queued", receipt.position)


def issuance_view(status: IssuanceStatus, refresh_after_seconds: int | None = None) -> IssuanceView:
    """Render the state of a request."""
    request, prospect = status.request, status.prospect
    return IssuanceView(
        request.request_id,
        request.coupon_id,
        request.user_id,
        request.state,
        request.code,
        request.partition,
        request.offset,
        prospect.position,
        prospect.eta_seconds and WaitView(*prospect.eta_seconds),
        prospect.outlook,
        refresh_after_seconds,
        request.sequence,
        request.attempts,
        to_datetime(request.requested_at_ms),
        to_optional_datetime(request.decided_at_ms),
    )


def user_issuance_view(listed: UserRequest, now_ms: int) -> UserIssuanceView:
    """Render a request in the list of its user."""
    status = listed.status
    prospect = Prospect(outlook=outlook_of(status.state, None, None))
    waited_seconds = (now_ms - status.requested_at_ms) / 1000
    refresh = refresh_after_seconds(status.state, waited_seconds, None, jitter())
    view = issuance_view(IssuanceStatus(status, prospect, None, None), refresh)
    return UserIssuanceView(**msgspec.structs.asdict(view), coupon_name=listed.coupon_name)


def progress_view(progress: PartitionProgress) -> ProgressView:
    """Render the progress of a partition."""
    rate = progress.records_per_second
    return ProgressView(
        progress.partition, progress.next_offset, rate and RateView(round(rate.min, 1), round(rate.max, 1))
    )
