"""Responses as bytes: for ASGI and for the socket. Errors are problem details (RFC 9457)."""

from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from random import getrandbits
from typing import NamedTuple

import msgspec
from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

PROBLEM_JSON = "application/problem+json"
_CONTENT_TYPE = (b"content-type", PROBLEM_JSON.encode())
_NO_ID = 16 * "-"
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
        parts += [b"%b: %b\r\n" % header for header in default_headers]
        parts += [b"%b: %b\r\n" % header for header in self.headers]
        parts += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", self.body)
        return b"".join(parts)


def problem_response(
    status: int, code: str, detail: str, headers: Iterable[tuple[bytes, bytes]] = (), problem_id: str | None = None
) -> RenderedResponse:
    """Render problem details.

    problem_id: the id of a log line that was written before; None: a new one.
    """
    before, after = _problem_parts(int(status), code, detail)
    body = before + (problem_id or new_problem_id()).encode() + after
    return RenderedResponse(status, [*headers, (b"content-length", b"%d" % len(body)), _CONTENT_TYPE], body)


@lru_cache(maxsize=256)
def _problem_parts(status: int, code: str, detail: str) -> tuple[bytes, bytes]:
    """Render a problem's body; return what precedes and what follows its id, in which alone most responses differ."""
    body = encode(Problem(f"urn:coupons:problem:{code}", HTTPStatus(status).phrase, status, code, detail, _NO_ID))
    before, _, after = body.rpartition(_NO_ID.encode())
    return before, after


def new_problem_id() -> str:
    """Return the id of one problem, by which an operator finds its log lines. It is unique, and no secret."""
    return f"{getrandbits(64):016x}"
