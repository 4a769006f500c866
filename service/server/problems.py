"""Every problem that HTTP callers can receive: its status, its title, and what they can do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple

from service.domain.error_code import ErrorCode
from service.limits import MAX_BODY_BYTES, MAX_HEAD_BYTES, MAX_PIPELINED


class ProblemKind(NamedTuple):
    """What all problems with one code have in common."""

    status: HTTPStatus
    title: str
    #: what happened and what the caller can do; the `detail` of a response that has none of its own
    detail: str
    #: headers that such a response has
    headers: tuple[str, ...] = ()


PROBLEMS_PATH = "/problems"
"""The path of the pages about problems. With a code it is the `type` of a problem, a relative reference with its full
path (RFC 9457, section 3.1.1)."""
_CLOSES = ("Connection",)
_WAIT = ("Retry-After",)
_LIMIT = ("Retry-After", "RateLimit", "RateLimit-Policy")

PROBLEMS: Mapping[ErrorCode, ProblemKind] = {
    ErrorCode.BAD_REQUEST: ProblemKind(
        HTTPStatus.BAD_REQUEST, "Bad request", "The request is not valid HTTP/1.1, or did not arrive whole.", _CLOSES
    ),
    ErrorCode.UNAUTHENTICATED: ProblemKind(
        HTTPStatus.UNAUTHORIZED,
        "Unauthenticated",
        "The request has no valid credentials. Send a token, a ticket or an API key that is valid.",
        ("WWW-Authenticate",),
    ),
    ErrorCode.FORBIDDEN: ProblemKind(
        HTTPStatus.FORBIDDEN, "Forbidden", "The credentials are valid and do not allow this. Use others."
    ),
    ErrorCode.NOT_FOUND: ProblemKind(
        HTTPStatus.NOT_FOUND, "Not found", "There is nothing at this path. Check the path."
    ),
    ErrorCode.UNKNOWN_COUPON: ProblemKind(
        HTTPStatus.NOT_FOUND, "Unknown coupon", "There is no coupon with this id. Check the id."
    ),
    ErrorCode.UNKNOWN_REQUEST: ProblemKind(
        HTTPStatus.NOT_FOUND, "Unknown request", "No request with this id was ever accepted, or it is another user's."
    ),
    ErrorCode.UNKNOWN_DEAD_LETTER: ProblemKind(
        HTTPStatus.NOT_FOUND, "Unknown dead letter", "There is no dead letter with this id. Check the id."
    ),
    ErrorCode.METHOD_NOT_ALLOWED: ProblemKind(
        HTTPStatus.METHOD_NOT_ALLOWED,
        "Method not allowed",
        "The path does not have this method. The Allow header names those it has.",
        ("Allow",),
    ),
    ErrorCode.REQUEST_TIMEOUT: ProblemKind(
        HTTPStatus.REQUEST_TIMEOUT, "Request timeout", "The request did not arrive in time. Send it again.", _CLOSES
    ),
    ErrorCode.DUPLICATE: ProblemKind(
        HTTPStatus.CONFLICT,
        "Duplicate",
        "This user has already requested this coupon. The Location header names the first request.",
        ("Location",),
    ),
    ErrorCode.SOLD_OUT: ProblemKind(
        HTTPStatus.CONFLICT, "Sold out", "All coupons are taken. A coupon may become available later."
    ),
    ErrorCode.NOT_OPEN: ProblemKind(
        HTTPStatus.CONFLICT,
        "Not open",
        "The coupon is not open yet. The Retry-After header gives the seconds until it opens.",
        _WAIT,
    ),
    ErrorCode.CLOSED: ProblemKind(HTTPStatus.CONFLICT, "Closed", "The coupon is closed and accepts no more requests."),
    ErrorCode.PAUSED: ProblemKind(
        HTTPStatus.CONFLICT, "Paused", "An administrator has paused the coupon. Try again later."
    ),
    ErrorCode.QUANTITY_BELOW_LIVE: ProblemKind(
        HTTPStatus.CONFLICT,
        "Quantity below live",
        "More coupons are issued or held than the new quantity. Set a higher one.",
    ),
    ErrorCode.WINDOW: ProblemKind(HTTPStatus.CONFLICT, "Window", "The value of closes_at must be after opens_at."),
    ErrorCode.NOT_CLOSED: ProblemKind(
        HTTPStatus.CONFLICT,
        "Not closed",
        "Only a closed coupon can be archived, and it cannot be opened while it is. Close it first, or set archived to"
        " false.",
    ),
    ErrorCode.NOT_REPLAYABLE: ProblemKind(
        HTTPStatus.CONFLICT, "Not replayable", "The dead letter cannot be replayed; the detail says why."
    ),
    ErrorCode.REPLAYED: ProblemKind(
        HTTPStatus.CONFLICT, "Replayed", "The dead letter has been replayed, so it cannot be discarded."
    ),
    ErrorCode.DISCARDED: ProblemKind(
        HTTPStatus.CONFLICT, "Discarded", "The dead letter has been discarded, so it cannot be replayed."
    ),
    ErrorCode.CHANGED: ProblemKind(
        HTTPStatus.CONFLICT, "Changed", "The state changed meanwhile. Read it, then repeat the request."
    ),
    ErrorCode.PRECONDITION_FAILED: ProblemKind(
        HTTPStatus.PRECONDITION_FAILED,
        "Precondition failed",
        "The coupon was changed meanwhile. Read it, then repeat the request with its ETag in If-Match.",
    ),
    ErrorCode.REQUEST_ENTITY_TOO_LARGE: ProblemKind(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "Request entity too large",
        f"The body must not exceed {MAX_BODY_BYTES} bytes.",
        _CLOSES,
    ),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: ProblemKind(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "Unsupported media type",
        "The body must be sent with Content-Type: application/json, and without Content-Encoding.",
    ),
    ErrorCode.MISDIRECTED_REQUEST: ProblemKind(
        HTTPStatus.MISDIRECTED_REQUEST,
        "Misdirected request",
        "The API is not reached under the name in Host.",
        _CLOSES,
    ),
    ErrorCode.INVALID: ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", "The input does not have the required form; the detail says where."
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: ProblemKind(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Idempotency key reused",
        "The Idempotency-Key was sent before with another body. Send each request with a key of its own.",
    ),
    ErrorCode.RATE_LIMITED: ProblemKind(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Rate limited",
        "There were too many requests. Repeat the request after the time in Retry-After.",
        _LIMIT,
    ),
    ErrorCode.TOO_BUSY: ProblemKind(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too busy",
        "The service is doing the maximum of this work at a time. Repeat the request after the time in Retry-After.",
        _WAIT,
    ),
    ErrorCode.TOO_MANY_STREAMS: ProblemKind(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many streams",
        "The maximum number of streams is open. Close one, or repeat the request after the time in Retry-After.",
        _WAIT,
    ),
    ErrorCode.TOO_MANY_REQUESTS: ProblemKind(
        HTTPStatus.TOO_MANY_REQUESTS,
        "Too many requests",
        f"At most {MAX_PIPELINED} requests may wait on a connection. Send the others after their responses.",
        _CLOSES,
    ),
    ErrorCode.REQUEST_HEADER_FIELDS_TOO_LARGE: ProblemKind(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        "Request header fields too large",
        f"The request line and headers must not exceed {MAX_HEAD_BYTES} bytes.",
        _CLOSES,
    ),
    ErrorCode.INTERNAL: ProblemKind(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Internal error",
        "An internal error occurred. An operator can find it in the log by its problem_id.",
    ),
    ErrorCode.NOT_IMPLEMENTED: ProblemKind(
        HTTPStatus.NOT_IMPLEMENTED, "Not implemented", "The server is not a proxy.", _CLOSES
    ),
    ErrorCode.UNAVAILABLE: ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Unavailable",
        "A part of the service is unavailable. Repeat the request after the time in Retry-After.",
        _WAIT,
    ),
    ErrorCode.CREATION_UNCONFIRMED: ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Creation unconfirmed",
        "The coupon may have been created. Look for it in the list before you send the request again. A request with an"
        " Idempotency-Key can always be sent again.",
    ),
    ErrorCode.BACKLOG_FULL: ProblemKind(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Backlog full",
        "Too many requests wait for a decision. Repeat the request after the time in Retry-After.",
        _WAIT,
    ),
}
