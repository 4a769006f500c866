"""Which pages of other sites may call the API (CORS, Fetch Standard), by the setting CORS_ORIGINS.

Starlette's middleware answers preflights and adds the headers to responses of the application. CrossOriginHeaders has
the same headers for responses that are rendered without it: those of plain requests, and rejections of the server.
Credentials of the browser (cookies) are never allowed: callers send an Authorization header.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from service.api.errors import error_response, to_starlette
from service.domain.errors import Forbidden

#: headers of requests that a page may set, besides those that need no permission
_REQUEST_HEADERS = ("Authorization", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-ID")
#: headers of responses that a page may read, besides those that need no permission
_RESPONSE_HEADERS = ("ETag", "Link", "Location", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate")
_METHODS = ("GET", "HEAD", "PATCH", "POST")
#: seconds for which a browser remembers the answer to a preflight; browsers allow at most two hours
_PREFLIGHT_SECONDS = 7_200
_VARY = (b"vary", b"Origin")
_EXPOSED = (b"access-control-expose-headers", ", ".join(_RESPONSE_HEADERS).encode())

RawHeaders = Sequence[tuple[bytes, bytes]]


class CrossOriginHeaders:
    """The headers by which a browser shows a response to a page of another site, or does not."""

    def __init__(self, origins: Iterable[str]) -> None:
        self._allowed: Mapping[bytes, RawHeaders] = {
            origin.encode(): (_EXPOSED, (b"access-control-allow-origin", origin.encode()), _VARY) for origin in origins
        }
        self._refused: RawHeaders = (_EXPOSED, _VARY)
        self._same_site: RawHeaders = (_VARY,)

    def of(self, fields: Mapping[bytes, bytes]) -> RawHeaders:
        """Return the headers of a response; `fields` are the headers of its request, by lower-case name."""
        origin = fields.get(b"origin")
        return self._same_site if origin is None else self._allowed.get(origin, self._refused)


@lru_cache
def cross_origin_headers(origins: tuple[str, ...]) -> CrossOriginHeaders | None:
    """Return the headers of responses that pass no middleware; None: no page of another site may call."""
    return CrossOriginHeaders(origins) if origins else None


def allow_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return the application with answers to preflights and with the headers, if there are `origins`.

    It wraps the whole application, so that the response to an unexpected error has the headers, too.
    """
    return _Middleware(app, origins) if origins else app


class _Middleware(CORSMiddleware):
    """Starlette's middleware; a preflight that it refuses is answered with problem details."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=_METHODS,
            allow_headers=_REQUEST_HEADERS,
            expose_headers=_RESPONSE_HEADERS,
            max_age=_PREFLIGHT_SECONDS,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight, which needs no credentials: 200, or 403 with what CORS_ORIGINS does not allow."""
        response = super().preflight_response(request_headers)
        if response.status_code == HTTPStatus.OK:
            return response
        reason = bytes(response.body).decode()
        refused = to_starlette(error_response(Forbidden(f"A page of this site cannot send the request: {reason}.")))
        refused.headers["Vary"] = response.headers["Vary"]
        return refused
