"""Responses as bytes: for ASGI and for the socket. Errors are problem details (RFC 9457)."""

from collections.abc import Iterable
from functools import lru_cache
from random import getrandbits
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.clock import jitter
from service.domain.error_code import ErrorCode
from service.server.problems import PROBLEMS, PROBLEMS_PATH

PROBLEM_JSON = "application/problem+json"
#: the header of what changes or is somebody's: of all that this service renders itself
NO_STORE = (b"cache-control", b"no-store")
_CONTENT_TYPE = (b"content-type", PROBLEM_JSON.encode())
_NO_ID = 16 * "-"
encode = msgspec.json.Encoder().encode


class Problem(Struct, frozen=True):
    """Problem details of RFC 9457; an operator finds the log lines of `problem_id`."""

    type: Annotated[str, Meta(extra_json_schema={"format": "uri-reference"})]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    #: clients must expect codes that later versions add, so it is no enum in the OpenAPI document
    code: Annotated[str, Meta(extra_json_schema={"x-extensible-enum": [code.value for code in PROBLEMS]})]
    detail: str
    problem_id: str


def make_problem(code: ErrorCode, detail: str | None, problem_id: str) -> Problem:
    """Return the problem with this code; `detail` None: that of PROBLEMS."""
    kind = PROBLEMS[code]
    return Problem(f"{PROBLEMS_PATH}/{code}", kind.title, kind.status, code, detail or kind.detail, problem_id)


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
    code: ErrorCode,
    detail: str | None = None,
    headers: Iterable[tuple[bytes, bytes]] = (),
    problem_id: str | None = None,
) -> RenderedResponse:
    """Render problem details.

    detail: what happened and what the caller can do; None: that of PROBLEMS.
    problem_id: the id of a log line that was written before; None: a new one.
    """
    status, before, after = _problem_parts(code, detail)
    body = before + (problem_id or new_problem_id()).encode() + after
    return RenderedResponse(status, [*headers, NO_STORE, (b"content-length", b"%d" % len(body)), _CONTENT_TYPE], body)


@lru_cache(maxsize=256)
def _problem_parts(code: ErrorCode, detail: str | None) -> tuple[int, bytes, bytes]:
    """Return a problem's status, and its body before and after the id, in which alone most responses differ."""
    problem = make_problem(code, detail, _NO_ID)
    before, _, after = encode(problem).rpartition(_NO_ID.encode())
    return int(problem.status), before, after


def new_problem_id() -> str:
    """Return the id of one problem, by which an operator finds its log lines. It is unique, and no secret."""
    return f"{getrandbits(64):016x}"


def retry_after(first_seconds: int, last_seconds: int) -> tuple[bytes, bytes]:
    """Return a Retry-After with a random time in between: callers that fail together must not come back together."""
    return b"retry-after", b"%d" % (first_seconds + int(jitter() * (last_seconds - first_seconds + 1)))


class Rejection(Exception):
    """A request that the server answers itself; the connection ends."""

    def __init__(self, code: ErrorCode, detail: str | None = None, *headers: tuple[bytes, bytes]) -> None:
        """Without `detail` that of PROBLEMS is sent."""
        super().__init__(detail or PROBLEMS[code].detail)
        self.code = code
        self.headers = headers

    def response(self) -> RenderedResponse:
        """Render problem details that end the connection."""
        return problem_response(self.code, str(self), [*self.headers, (b"connection", b"close")])
