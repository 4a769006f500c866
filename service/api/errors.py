"""Maps errors to responses: RFC 9457 problem details, of which service/server/problems.py has the list."""

import math
import re
from collections.abc import Iterable
from functools import singledispatch
from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from service.clock import jitter
from service.domain.error_code import ErrorCode
from service.domain.errors import (
    BacklogFull,
    Cancelled,
    Conflict,
    CreationUnconfirmed,
    Forbidden,
    InvalidInput,
    NotFound,
    RateLimited,
    Refused,
    TooBusy,
    TooManyStreams,
    Unauthenticated,
    Unavailable,
)
from service.domain.rate_limit import MICROSECONDS, Exceeded, LimitScope
from service.log import get_logger
from service.log_events import LogEvent
from service.server.problems import PROBLEMS
from service.server.responses import RenderedResponse, new_problem_id, problem_response, retry_after

_log = get_logger(__name__)
_RATE_LIMITED = {
    LimitScope.USER: "This user has sent too many requests.",
    LimitScope.ADDRESS: "Too many requests came from this address.",
    LimitScope.ALL: "The service gets too many requests.",
}
#: the code of an error that has only a status
_OF_STATUS: dict[int, ErrorCode] = {
    PROBLEMS[code].status: code
    for code in (
        ErrorCode.BAD_REQUEST, ErrorCode.NOT_FOUND, ErrorCode.METHOD_NOT_ALLOWED, ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    )
}  # fmt: skip
_URL_SAFE = re.compile(r"[A-Za-z0-9_-]+")


def _logged_problem(
    code: ErrorCode, detail: str, headers: Iterable[tuple[bytes, bytes]] = (), problem_id: str | None = None
) -> RenderedResponse:
    """Render a problem of the service, a 5xx; the log line has its `problem_id`.

    problem_id: the id of a log line that was written before; None: a new one.
    """
    problem_id = problem_id or new_problem_id()
    status = int(PROBLEMS[code].status)
    _log.warning(LogEvent.SERVER_ERROR, status=status, code=code, detail=detail, problem_id=problem_id)
    return problem_response(code, detail, headers, problem_id)


@singledispatch
def error_response(error: Exception) -> RenderedResponse:
    """Render the response to any error; an exception of an unknown type is logged and becomes a 500."""
    problem_id = new_problem_id()
    _log.error(LogEvent.UNHANDLED_EXCEPTION, exc_info=error, problem_id=problem_id)
    return _logged_problem(ErrorCode.INTERNAL, PROBLEMS[ErrorCode.INTERNAL].detail, problem_id=problem_id)


@error_response.register
def _refused(error: Refused) -> RenderedResponse:
    headers = []
    if error.first_request_id:
        headers.append((b"location", b"/issuances/%b" % _quoted(error.first_request_id)))
    if error.opens_in_ms is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.opens_in_ms / 1000))))
    return problem_response(ErrorCode(error.code), headers=headers)


def _quoted(request_id: str) -> bytes:
    """Return a request id for a URL. `quote` costs more than the rest of a response; ids of the service need none."""
    return request_id.encode() if _URL_SAFE.fullmatch(request_id) else quote(request_id, safe="").encode()


@error_response.register
def _unauthenticated(error: Unauthenticated) -> RenderedResponse:
    """RFC 6750, section 3: without credentials the challenge names no error."""
    challenge = b"Bearer" if error.absent else b'Bearer error="invalid_token"'
    return problem_response(ErrorCode.UNAUTHENTICATED, str(error), [(b"www-authenticate", challenge)])


@error_response.register
def _forbidden(error: Forbidden) -> RenderedResponse:
    return problem_response(ErrorCode.FORBIDDEN, str(error))


@error_response.register
def _rate_limited(error: RateLimited) -> RenderedResponse:
    """Nothing is logged: the caller decides how many these are."""
    detail = f"{_RATE_LIMITED[error.exceeded.scope]} Repeat the request after the time in Retry-After."
    headers = rate_limit_headers(error.exceeded)
    return problem_response(ErrorCode.RATE_LIMITED, detail, headers)


def rate_limit_headers(exceeded: Exceeded) -> list[tuple[bytes, bytes]]:
    """Return the headers about an exceeded limit: those of draft-ietf-httpapi-ratelimit-headers, and Retry-After.

    Retry-After is spread over one more window, so that callers who were limited together do not come back together.
    """
    scope, limit, wait_us = exceeded
    wait_seconds = wait_us / MICROSECONDS
    return [
        (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (scope.encode(), limit.requests, limit.seconds)),
        (b"ratelimit", b'"%b";r=0;t=%d' % (scope.encode(), math.ceil(wait_seconds))),
        (b"retry-after", b"%d" % math.ceil(wait_seconds + jitter() * limit.seconds)),
    ]


@error_response.register(Conflict)
@error_response.register(NotFound)
def _contradicted(error: Conflict | NotFound) -> RenderedResponse:
    return problem_response(error.code, str(error))


@error_response.register
def _unavailable(error: Unavailable) -> RenderedResponse:
    """The caller can repeat the request, also when its outcome is unknown."""
    detail = f"{error.part} is unavailable. Repeat the request after the time in Retry-After."
    _log.warning(LogEvent.PART_UNAVAILABLE, part=error.part, reason=str(error))
    return _logged_problem(ErrorCode.UNAVAILABLE, detail, [retry_after(1, 3)])


@error_response.register
def _creation_unconfirmed(error: CreationUnconfirmed) -> RenderedResponse:
    """A repeat is not safe: no Retry-After."""
    _log.warning(LogEvent.PART_UNAVAILABLE, part=error.part, reason=str(error))
    return _logged_problem(ErrorCode.CREATION_UNCONFIRMED, PROBLEMS[ErrorCode.CREATION_UNCONFIRMED].detail)


@error_response.register
def _backlog_full(_: BacklogFull) -> RenderedResponse:
    """Not logged one by one: service/usecases/backlog.py logs when it begins and ends."""
    return problem_response(ErrorCode.BACKLOG_FULL, headers=[retry_after(3, 6)])


@error_response.register
def _too_busy(error: TooBusy) -> RenderedResponse:
    detail = f"{error} Repeat the request after the time in Retry-After."
    headers = [retry_after(error.retry_after_seconds, 2 * error.retry_after_seconds)]
    return problem_response(ErrorCode.TOO_BUSY, detail, headers)


@error_response.register
def _too_many_streams(error: TooManyStreams) -> RenderedResponse:
    headers = [retry_after(error.retry_after_seconds, 2 * error.retry_after_seconds)]
    detail = f"{error} Close one, or repeat the request after the time in Retry-After."
    return problem_response(ErrorCode.TOO_MANY_STREAMS, detail, headers)


@error_response.register
def _cancelled(error: Cancelled) -> RenderedResponse:
    """The client has gone: what is rendered reaches nobody, and is no server error."""
    return problem_response(ErrorCode.BAD_REQUEST, str(error))


@error_response.register
def _invalid(error: InvalidInput) -> RenderedResponse:
    return problem_response(ErrorCode.INVALID, str(error))


@error_response.register
def _http(error: HTTPException) -> RenderedResponse:
    """Render an error that Starlette, FastAPI or a parser of this API raised for the request."""
    code = _OF_STATUS.get(error.status_code)
    if code is None:  # no part of the API raises it
        return _logged_problem(ErrorCode.INTERNAL, str(error))
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (error.headers or {}).items()
    ]
    return problem_response(
        code, None if error.detail == HTTPStatus(error.status_code).phrase else error.detail, headers
    )


def install_error_handlers(app: FastAPI) -> None:
    """Make the application answer every error with problem details."""

    async def handle(_: Request, error: Exception) -> Response:
        return to_starlette(error_response(error))

    for kind in (
        Refused, RateLimited, Unauthenticated, Forbidden, Conflict, NotFound, Unavailable, TooBusy, Cancelled,
        InvalidInput, HTTPException, Exception,
    ):  # fmt: skip
        app.add_exception_handler(kind, handle)


def to_starlette(rendered: RenderedResponse) -> Response:
    """Return the response for a route of FastAPI."""
    response = Response(rendered.body, rendered.status)
    response.raw_headers = rendered.headers
    return response
