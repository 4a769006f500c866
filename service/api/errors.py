"""Errors as answers: RFC 9457 problem details, the one place for the status codes of refusals."""

import logging
import math
import secrets
from functools import singledispatch
from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from service.clock import now_ms
from service.domain.errors import Conflict, NotFound, Unavailable
from service.domain.refusal import Refused
from service.domain.request import ReasonCode

_log = logging.getLogger(__name__)
_REFUSED = {
    ReasonCode.UNKNOWN_COUPON: (HTTPStatus.NOT_FOUND, "There is no such coupon."),
    ReasonCode.DUPLICATE: (
        HTTPStatus.CONFLICT,
        "This user has asked for this coupon before; Location is that request.",
    ),
    ReasonCode.SOLD_OUT: (HTTPStatus.CONFLICT, "At this instant no coupon is left."),
    ReasonCode.NOT_OPEN: (HTTPStatus.CONFLICT, "The coupon is not open yet; Retry-After tells when it is."),
    ReasonCode.CLOSED: (HTTPStatus.CONFLICT, "The coupon is closed."),
    ReasonCode.PAUSED: (HTTPStatus.CONFLICT, "The coupon is paused by its operator; try again later."),
}
_UNAVAILABLE_SECONDS = 1


class InvalidRequest(Exception):
    """What was sent cannot be read as what this call takes."""


def problem_response(status: int, code: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """A problem details answer; its request_id is in the log beside what caused it."""
    request_id = secrets.token_hex(8)
    body = {
        "type": f"urn:coupons:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "request_id": request_id,
    }
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("answered %s %s: %s", status, code, detail, extra={"request_id": request_id})
    return Response(msgspec.json.encode(body), status, headers, "application/problem+json")


@singledispatch
def error_response(error: Exception) -> Response:
    """Any error as a problem details answer; one that nobody foresaw is logged."""
    _log.error("a handler failed", exc_info=error)
    return problem_response(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The failure has been logged.")


@error_response.register
def _refused(error: Refused) -> Response:
    """What the gate says, with the first request's Location or the time to wait."""
    status, detail = _REFUSED[error.code]
    headers = {}
    if error.first_request_id:
        headers["Location"] = f"/issuances/{error.first_request_id}"
    if error.opens_at_ms:
        headers["Retry-After"] = str(max(1, math.ceil((error.opens_at_ms - now_ms()) / 1000)))
    return problem_response(status, error.code, detail, headers)


@error_response.register
def _conflict(error: Conflict) -> Response:
    return problem_response(HTTPStatus.CONFLICT, error.code, str(error))


@error_response.register
def _missing(error: NotFound) -> Response:
    return problem_response(HTTPStatus.NOT_FOUND, error.code, str(error))


@error_response.register
def _unavailable(error: Unavailable) -> Response:
    """503: nothing was decided; where the outcome is unknown, the repeat is safe."""
    headers = {"Retry-After": str(_UNAVAILABLE_SECONDS)}
    detail = f"{error.part} does not answer. Nothing is lost: the same request may be sent again."
    _log.warning("unavailable: %s", error)
    return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", detail, headers)


@error_response.register
def _invalid(error: InvalidRequest) -> Response:
    """422: what was sent, not when, is at fault."""
    return problem_response(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", str(error))


@error_response.register
def _http(error: HTTPException) -> Response:
    code = HTTPStatus(error.status_code).name.lower()
    return problem_response(error.status_code, code, str(error.detail), dict(error.headers or {}))


def install_error_handlers(app: FastAPI) -> None:
    """Makes every error of the application a problem details answer."""

    async def handle(_: Request, error: Exception) -> Response:
        return error_response(error)

    for kind in (Refused, Conflict, NotFound, Unavailable, InvalidRequest, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These statuses' entries in the OpenAPI document."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}
