"""Maps errors to responses: RFC 9457 problem details; chooses the status codes of errors."""

import math
import secrets
from functools import singledispatch
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from service.api.schemas.base import Problem, encode
from service.clock import now_ms
from service.domain.errors import Conflict, InvalidInput, NotFound, Refused, Unavailable
from service.domain.request import ReasonCode
from service.log import get_logger
from service.log_events import LogEvent

_log = get_logger(__name__)
_PROBLEM_JSON = "application/problem+json"
_REFUSED = {
    ReasonCode.UNKNOWN_COUPON: (HTTPStatus.NOT_FOUND, "There is no coupon with this id."),
    ReasonCode.DUPLICATE: (
        HTTPStatus.CONFLICT,
        "This user has already requested this coupon. The Location header names the first request.",
    ),
    ReasonCode.SOLD_OUT: (HTTPStatus.CONFLICT, "All coupons are taken. A coupon may become available later."),
    ReasonCode.NOT_OPEN: (
        HTTPStatus.CONFLICT,
        "The coupon is not open yet. The Retry-After header gives the seconds until it opens.",
    ),
    ReasonCode.CLOSED: (HTTPStatus.CONFLICT, "The coupon is closed and accepts no more requests."),
    ReasonCode.PAUSED: (HTTPStatus.CONFLICT, "An administrator has paused the coupon. Try again later."),
}
_UNAVAILABLE_SECONDS = 1


def problem_response(
    status: int, code: str, detail: str, headers: dict[str, str] | None = None, problem_id: str | None = None
) -> Response:
    """Build a response with problem details; the log line of a 5xx has its `request_id` as `problem_id`.

    problem_id: the id of a log line that was written before; None: a new one.
    """
    problem_id = problem_id or _new_problem_id()
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning(LogEvent.SERVER_ERROR, status=status, code=code, detail=detail, problem_id=problem_id)
    body = Problem(f"urn:coupons:problem:{code}", HTTPStatus(status).phrase, int(status), code, detail, problem_id)
    return Response(encode(body), status, headers, _PROBLEM_JSON)


def _new_problem_id() -> str:
    return secrets.token_hex(8)


@singledispatch
def error_response(error: Exception) -> Response:
    """Build the response for any error; an exception of an unknown type is logged and becomes a 500."""
    problem_id = _new_problem_id()
    _log.error(LogEvent.UNHANDLED_EXCEPTION, exc_info=error, problem_id=problem_id)
    detail = (
        "An internal error occurred. An operator can find it in the log: the field problem_id of its lines is this"
        " request_id."
    )
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", detail, problem_id=problem_id)


@error_response.register
def _refused(error: Refused) -> Response:
    status, detail = _REFUSED[error.code]
    headers = {}
    if error.first_request_id:
        headers["Location"] = f"/issuances/{quote(error.first_request_id, safe='')}"
    if error.opens_at_ms:
        headers["Retry-After"] = str(max(1, math.ceil((error.opens_at_ms - now_ms()) / 1000)))
    return problem_response(status, error.code, detail, headers)


@error_response.register
def _conflict(error: Conflict) -> Response:
    return problem_response(HTTPStatus.CONFLICT, error.code, str(error))


@error_response.register
def _not_found(error: NotFound) -> Response:
    return problem_response(HTTPStatus.NOT_FOUND, error.code, str(error))


@error_response.register
def _unavailable(error: Unavailable) -> Response:
    """The caller can repeat the request, also when its outcome is unknown."""
    headers = {"Retry-After": str(_UNAVAILABLE_SECONDS)}
    detail = f"{error.part} is unavailable. Repeat the request after the time in Retry-After."
    _log.warning(LogEvent.PART_UNAVAILABLE, part=error.part, reason=str(error))
    return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, headers)


@error_response.register
def _invalid(error: InvalidInput) -> Response:
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", str(error))


@error_response.register
def _http(error: HTTPException) -> Response:
    code = HTTPStatus(error.status_code).name.lower()
    return problem_response(error.status_code, code, str(error.detail), dict(error.headers or {}))


def install_error_handlers(app: FastAPI) -> None:
    """Make the application answer every error with problem details."""

    async def handle(_: Request, error: Exception) -> Response:
        return error_response(error)

    for kind in (Refused, Conflict, NotFound, Unavailable, InvalidInput, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the entries of these statuses for a route's OpenAPI description."""
    content = {_PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
