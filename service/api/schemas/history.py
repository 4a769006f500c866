"""The body that shows what happened to a request."""

from msgspec import UNSET, Struct, UnsetType

from service.api.schemas.base import Count, Id, Reason, SafeId, Time
from service.domain.request import RequestState
from service.domain.request_history import HistoryEvent, HistoryEventKind
from service.timestamps import to_datetime, to_milliseconds
from service.usecases.request_history import RequestHistory


class HistoryEventView(Struct, frozen=True):
    """An event; a field that its kind does not have is absent, and `at` is null if the time is not known.

    - `requested`: the request id was made, or the time that another producer's record names.
    - `appended`: the record was appended to the log, at `partition` and `offset`.
    - `attempt_failed`: an attempt to issue it failed; `attempt` counts from 1.
    - `decided`: the state became final, with its `code` or `sequence`.
    - `forwarded`: the dead letter was written to its topic, at `partition` and `offset` there.
    - `replayed`: an operator (`by`) had it decided again, which led to `state`.
    - `discarded`: an operator closed the dead letter.
    - `notice_failed`, `notice_delivered`: the receiver of notices refused or accepted the notice `delivery_id`, in this
      `attempt`. Of several failed attempts only the last one is kept.
    """

    kind: HistoryEventKind
    at: Time | None
    partition: Count | UnsetType = UNSET
    offset: Count | UnsetType = UNSET
    attempt: Count | UnsetType = UNSET
    error: str | UnsetType = UNSET
    state: RequestState | UnsetType = UNSET
    code: Reason | UnsetType = UNSET
    sequence: SafeId | UnsetType = UNSET
    dead_letter_id: SafeId | UnsetType = UNSET
    by: str | UnsetType = UNSET
    delivery_id: str | UnsetType = UNSET
    status: Count | UnsetType = UNSET


class HistoryView(Struct, frozen=True):
    """What happened to a request, in order.

    Callers without the permission `read_operations` get no errors, names of operators, ids of dead letters, and no
    `forwarded`, `notice_failed` and `notice_delivered`.
    """

    request_id: str
    coupon_id: Id
    user_id: Id
    state: RequestState
    code: Reason | None
    events: list[HistoryEventView]


def history_view(history: RequestHistory) -> HistoryView:
    """Render a request's history."""
    request = history.request
    return HistoryView(
        request.request_id,
        request.coupon_id,
        request.user_id,
        request.state,
        request.code,
        [_event_view(event) for event in history.events],
    )


def _event_view(event: HistoryEvent) -> HistoryEventView:
    fields = {name: value for name, value in event._asdict().items() if value is not None}
    return HistoryEventView(**{**fields, "at": event.at and to_datetime(to_milliseconds(event.at))})
