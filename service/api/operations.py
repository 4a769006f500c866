"""What FastAPI cannot know of each operation of the API, its parameters and the headers of its responses."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.event_stream import EVENT_STREAM
from service.api.pages import LIST_POSITION_PATTERN
from service.api.request_parsing import KEY_PATTERN
from service.api.routes.reports import MEDIA_TYPES
from service.api.schemas import (
    alerts,
    coupons,
    dead_letters,
    health,
    history,
    issuances,
    reports,
    tickets,
    verification,
)
from service.domain.coupon import CouponState
from service.domain.coupon_name import PART_PATTERN
from service.domain.dead_letter import DeadLetterCode, DeadLetterState
from service.domain.error_code import ErrorCode
from service.domain.request import RequestState
from service.limits import MAX_ID, MAX_NAME_LENGTH, MAX_PAGE_SIZE
from service.usecases.issuance_export import COLUMNS, ExportFormat


class Operation(NamedTuple):
    """What FastAPI cannot know of an operation."""

    id: str
    request: type[Struct] | None
    #: None: text
    response: type[Struct] | None
    #: the errors that only some operations have
    errors: tuple[ErrorCode, ...] = ()
    #: headers of a success
    headers: tuple[str, ...] = ()
    example: dict[str, Any] | None = None
    #: parameters of the query that have another meaning in other operations: description and schema by name
    parameters: dict[str, tuple[str, dict[str, Any]]] | None = None
    #: operations that take a field of the response: id of the operation -> name of its parameter, name of the field
    links: dict[str, tuple[str, str]] | None = None
    #: of a success that is text: what it is, and its media types
    text: str = "Prometheus's text format."
    text_types: tuple[str, ...] = (CONTENT_TYPE_LATEST,)
    #: other responses without a body: status -> description
    without_body: Mapping[str, str] = MappingProxyType({})


_STORED_STATES = [state.value for state in RequestState if state is not RequestState.QUEUED]
_CURSOR = "`next` of the previous page; absent for the first page."
_UNKNOWN_DEAD_LETTER = (ErrorCode.UNKNOWN_DEAD_LETTER, ErrorCode.TOO_BUSY)

#: by method and path
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/coupons"): Operation(
        "create_coupon",
        coupons.NewCoupon,
        coupons.CouponView,
        (ErrorCode.IDEMPOTENCY_KEY_REUSED, ErrorCode.CREATION_UNCONFIRMED, ErrorCode.TOO_BUSY),
        ("Location", "ETag"),
        {"name": "Coffee", "quantity": 1000, "waitlist": 100, "opens_at": "2030-01-01T12:00:00Z"},
        links=dict.fromkeys(("get_coupon", "change_coupon", "verify_coupon", "request_coupon"), ("coupon_id", "id")),
    ),
    ("GET", "/coupons"): Operation(
        "list_coupons",
        None,
        coupons.CouponPage,
        (ErrorCode.TOO_BUSY,),
        ("Link",),
        parameters={"state": ("Only those that are in this state now.", {"type": "string", "enum": list(CouponState)})},
    ),
    ("GET", "/coupons/{coupon_id}"): Operation(
        "get_coupon", None, coupons.CouponView, (ErrorCode.UNKNOWN_COUPON,), ("ETag",)
    ),
    ("PATCH", "/coupons/{coupon_id}"): Operation(
        "change_coupon",
        coupons.CouponPatch,
        coupons.CouponView,
        (
            ErrorCode.UNKNOWN_COUPON,
            ErrorCode.QUANTITY_BELOW_LIVE,
            ErrorCode.WINDOW,
            ErrorCode.NOT_CLOSED,
            ErrorCode.PRECONDITION_FAILED,
            ErrorCode.TOO_BUSY,
        ),
        ("ETag",),
        example={"quantity": 1500, "state": "open"},
    ),
    ("GET", "/coupons/{coupon_id}/verification"): Operation(
        "verify_coupon", None, verification.VerificationView, (ErrorCode.UNKNOWN_COUPON, ErrorCode.TOO_BUSY)
    ),
    ("GET", "/coupons/{coupon_id}/report"): Operation(
        "report_coupon", None, reports.CouponReportView, (ErrorCode.UNKNOWN_COUPON, ErrorCode.TOO_BUSY)
    ),
    ("GET", "/coupons/{coupon_id}/issuances"): Operation(
        "export_issuances",
        None,
        None,
        (ErrorCode.UNKNOWN_COUPON, ErrorCode.TOO_BUSY),
        ("Content-Disposition",),
        text=f"A line for each request, of these columns or of an object with these fields: {', '.join(COLUMNS)}.",
        text_types=tuple(MEDIA_TYPES.values()),
        parameters={
            "state": ("Only requests in this state.", {"type": "string", "enum": _STORED_STATES}),
            "format": ("The form of the lines.", {"type": "string", "enum": list(ExportFormat), "default": "csv"}),
        },
    ),
    ("POST", "/coupons/{coupon_id}/issuances"): Operation(
        "request_coupon",
        issuances.NewIssuance,
        issuances.ReceiptView,
        (
            ErrorCode.UNKNOWN_COUPON,
            ErrorCode.DUPLICATE,
            ErrorCode.SOLD_OUT,
            ErrorCode.NOT_OPEN,
            ErrorCode.CLOSED,
            ErrorCode.PAUSED,
            ErrorCode.RATE_LIMITED,
            ErrorCode.BACKLOG_FULL,
        ),
        ("Location",),
        {"user_id": 42},
        links={"get_issuance": ("request_id", "request_id")},
    ),
    ("GET", "/issuances/{request_id}"): Operation(
        "get_issuance",
        None,
        issuances.IssuanceView,
        (ErrorCode.UNKNOWN_REQUEST, ErrorCode.TOO_BUSY),
        ("ETag",),
        without_body={"304": "Nothing has changed since the response with this ETag."},
    ),
    ("GET", "/issuances/{request_id}/events"): Operation(
        "follow_issuance",
        None,
        None,
        (ErrorCode.UNKNOWN_REQUEST, ErrorCode.TOO_BUSY, ErrorCode.TOO_MANY_STREAMS),
        text="Server-sent events.",
        text_types=(EVENT_STREAM,),
        without_body={"204": "The event in Last-Event-ID was the last one."},
    ),
    ("GET", "/issuances/{request_id}/history"): Operation(
        "get_issuance_history", None, history.HistoryView, (ErrorCode.UNKNOWN_REQUEST, ErrorCode.TOO_BUSY)
    ),
    ("GET", "/users/{user_id}/issuances"): Operation(
        "list_user_issuances",
        None,
        issuances.UserIssuancePage,
        (ErrorCode.TOO_BUSY,),
        ("Link",),
        parameters={"cursor": (_CURSOR, {"type": "string", "pattern": f"^{LIST_POSITION_PATTERN}$"})},
    ),
    ("POST", "/tickets"): Operation(
        "create_ticket", tickets.NewTicket, tickets.TicketView, example={"purpose": "accept"}
    ),
    ("GET", "/dead-letters"): Operation(
        "list_dead_letters", None, dead_letters.DeadLetterPage, (ErrorCode.TOO_BUSY,), ("Link",)
    ),
    ("POST", "/dead-letters/replay"): Operation(
        "replay_dead_letters",
        dead_letters.ReplayRequest,
        dead_letters.ReplayView,
        (ErrorCode.TOO_BUSY,),
        example={"coupon_id": 7, "code": "exhausted", "limit": 100, "dry_run": True},
    ),
    ("GET", "/dead-letters/{dead_letter_id}"): Operation(
        "get_dead_letter", None, dead_letters.DeadLetterView, _UNKNOWN_DEAD_LETTER
    ),
    ("POST", "/dead-letters/{dead_letter_id}/replay"): Operation(
        "replay_dead_letter",
        None,
        dead_letters.ReplayedView,
        (*_UNKNOWN_DEAD_LETTER, ErrorCode.NOT_REPLAYABLE, ErrorCode.DISCARDED, ErrorCode.CHANGED),
    ),
    ("POST", "/dead-letters/{dead_letter_id}/discard"): Operation(
        "discard_dead_letter",
        None,
        dead_letters.DeadLetterView,
        (*_UNKNOWN_DEAD_LETTER, ErrorCode.REPLAYED, ErrorCode.CHANGED),
    ),
    ("GET", "/healthz"): Operation("get_liveness", None, health.LivenessView),
    ("GET", "/readyz"): Operation("get_readiness", None, health.ReadinessView),
    ("GET", "/alerts"): Operation("list_alerts", None, alerts.AlertsView),
    ("GET", "/metrics"): Operation("get_metrics", None, None),
}

#: the errors that every operation has
ERRORS_OF_ALL = (
    ErrorCode.BAD_REQUEST, ErrorCode.REQUEST_TIMEOUT, ErrorCode.REQUEST_ENTITY_TOO_LARGE,
    ErrorCode.MISDIRECTED_REQUEST, ErrorCode.TOO_MANY_REQUESTS, ErrorCode.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ErrorCode.INVALID, ErrorCode.INTERNAL, ErrorCode.UNAVAILABLE,
)  # fmt: skip

_ID_SCHEMA = {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID}
#: of paths, queries and headers, by name: description and schema
PARAMETERS: dict[str, tuple[str, dict[str, Any]]] = {
    "coupon_id": ("The id of a coupon.", _ID_SCHEMA),
    "dead_letter_id": ("The id of a dead letter.", _ID_SCHEMA),
    "user_id": ("The id of a user; above 2⁵³−1 only for callers who may read every user's requests.", _ID_SCHEMA),
    "request_id": ("The id that the 202 returned.", {"type": "string"}),
    "idempotency-key": (
        "A key of the caller's choice, for example a UUID, so that a repeat creates no second coupon.",
        {"type": "string", "pattern": KEY_PATTERN},
    ),
    "if-match": (
        "The ETag of the coupon. Without it the change is made even if the coupon was changed meanwhile.",
        {"type": "string"},
    ),
    "if-none-match": ("The ETag of an earlier response.", {"type": "string"}),
    "last-event-id": ("The id of the last event that was received.", {"type": "string"}),
    "limit": ("The size of the page.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE, "default": 50}),
    "cursor": (_CURSOR, {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"}),
    "code": ("Only those with this code.", {"type": "string", "enum": list(DeadLetterCode)}),
    "state": ("Only those in this state.", {"type": "string", "enum": list(DeadLetterState)}),
    "name": (
        "Only those whose name contains this text, in upper or lower case.",
        {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": PART_PATTERN},
    ),
    "dry_run": ("Return the result that it would have, and change nothing.", {"type": "boolean", "default": False}),
    "archived": (
        "Only those that are not archived, only those that are, or all.",
        {"type": "string", "enum": list(coupons.ArchivedChoice), "default": coupons.ArchivedChoice.FALSE},
    ),
}
HEADERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Allow": ("The methods that the path has.", {"type": "string"}),
    "Cache-Control": ("Whether the response may be stored: `no-store`, unless stated otherwise.", {"type": "string"}),
    "Connection": ("The connection ends.", {"type": "string"}),
    "Content-Disposition": ("A file name for the body.", {"type": "string"}),
    "ETag": ("The version of what is returned.", {"type": "string"}),
    "Link": ("A reference to the next page (RFC 8288); the last page has none.", {"type": "string"}),
    "Location": (
        "The path of what was created, or of the first request.",
        {"type": "string", "format": "uri-reference"},
    ),
    "RateLimit": ("The state of the limit (draft-ietf-httpapi-ratelimit-headers).", {"type": "string"}),
    "RateLimit-Policy": ("The limit (draft-ietf-httpapi-ratelimit-headers).", {"type": "string"}),
    "Retry-After": ("The seconds after which to repeat the request.", {"type": "integer", "minimum": 1}),
    "WWW-Authenticate": ("The kind of credentials that is needed (RFC 6750).", {"type": "string"}),
}
"""The headers of responses: what each says, and its schema."""
