"""Responses as bytes: for ASGI and for the socket. Errors are problem details (RFC 9457)."""

from collections.abc import Iterable
from http import HTTPStatus
from secrets import token_hex
from typing import NamedTuple

import msgspec
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

PROBLEM_JSON = "application/problem+json"
_CONTENT_TYPE = (b"content-type", PROBLEM_JSON.encode())
encode = msgspec.json.Encoder().encode


class Problem(Struct, frozen=True):
    """Problem details of RFC 9457."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str


class RenderedResponse(NamedTuple):
    """A response as ASGI sends it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def to_http1(self, default_headers: Iterable[tuple[bytes, bytes]], *, keep_alive: bool) -> bytes:
        """Return the response as uvicorn writes it, `default_headers` first.

        Without `keep_alive` it tells the client that the connection ends.
        """
        parts = [STATUS_LINE[self.status]]
        for name, value in (*default_headers, *self.headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", self.body)
        return b"".join(parts)


def problem_response(
    status: int, code: str, detail: str, headers: Iterable[tuple[bytes, bytes]] = (), problem_id: str | None = None
) -> RenderedResponse:
    """Render problem details.

    problem_id: the id of a log line that was written before; None: a new one.
    """
    title = HTTPStatus(status).phrase
    body = encode(
        Problem(f"urn:coupons:problem:{code}", title, int(status), code, detail, problem_id or new_problem_id())
    )
    return RenderedResponse(status, [*headers, (b"content-length", b"%d" % len(body)), _CONTENT_TYPE], body)


def new_problem_id() -> str:
    """Return the id of one problem, by which an operator finds its log lines."""
    return token_hex(8)
