"""The path below which callers reach this server: a reverse proxy removes it from requests.

Routes do not have it. Responses do: a reference to this server begins with it, which is a Location and the type of a
problem. Pages have relative references only.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.config.parsing import ROOT_PATH_PATTERN, parse_networks
from service.server.client_address import IPNetworks, is_from
from service.server.responses import PROBLEM_JSON, RenderedResponse

_MAX_LENGTH = 200
_FORWARDED_PREFIX = b"x-forwarded-prefix"
_PROBLEM_TYPE = (b"content-type", PROBLEM_JSON.encode())
#: of the body of every problem
_BEGINNING = b'{"type":"'

RawHeaders = list[tuple[bytes, bytes]]


class RootPaths:
    """Finds the root path of a request: that in X-Forwarded-Prefix of a trusted proxy, otherwise the configured one."""

    def __init__(self, configured: str, proxies: IPNetworks) -> None:
        self._configured = configured
        self._proxies = proxies

    def find(self, peer: tuple[str, int] | None, fields: Mapping[bytes, bytes]) -> str:
        """Return the path without a slash at its end; `fields` are the headers by lower-case name."""
        forwarded = fields.get(_FORWARDED_PREFIX)
        if forwarded is None or not is_from(peer, self._proxies):
            return self._configured
        found = _parse(forwarded)
        return self._configured if found is None else found


@lru_cache
def root_paths(configured: str, proxies: str) -> RootPaths | None:
    """Return what finds the root path of each request, by the settings ROOT_PATH and TRUSTED_PROXIES; None: no path."""
    return RootPaths(configured, parse_networks(proxies)) if configured or proxies else None


@lru_cache(maxsize=64)
def _parse(forwarded: bytes) -> str | None:
    """Return the path, or None for what is none. Several proxies in a row append theirs after a comma."""
    parts = [part.strip().rstrip("/") for part in forwarded.decode("latin-1").split(",")]
    path = "".join(parts)
    is_path = all(not part or ROOT_PATH_PATTERN.fullmatch(part) for part in parts)
    return path if is_path and len(path) <= _MAX_LENGTH else None


def below(response: RenderedResponse, root_path: str) -> RenderedResponse:
    """Return the response for a caller who reaches this server below the path."""
    if not root_path:
        return response
    headers, is_problem = _headers_below(response.headers, root_path.encode())
    body = _problem_below(response.body, root_path.encode()) if is_problem else response.body
    return RenderedResponse(response.status, headers, body)


def application_below(application: ASGIApp, root_path: str) -> ASGIApp:
    """Return the application for a caller who reaches this server below the path: it responds as `below` does."""
    prefix = root_path.encode()

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        is_problem = False

        async def send_below(message: Message) -> None:
            nonlocal is_problem
            if message["type"] == "http.response.start":
                headers, is_problem = _headers_below(message["headers"], prefix)
                message = {**message, "headers": headers}
            elif is_problem and message.get("body"):  # a problem is sent in one piece
                message = {**message, "body": _problem_below(message["body"], prefix)}
            await send(message)

        await application(scope, receive, send_below)

    return respond


def _headers_below(headers: Iterable[tuple[bytes, bytes]], prefix: bytes) -> tuple[RawHeaders, bool]:
    """Return the headers with the prefix, and whether they are those of a problem, whose body gets it too."""
    changed = list(headers)
    is_problem = _PROBLEM_TYPE in changed
    for number, (name, value) in enumerate(changed):
        if name == b"location" and value.startswith(b"/"):
            changed[number] = name, prefix + value
        elif name == b"content-length" and is_problem:
            changed[number] = name, b"%d" % (int(value) + len(prefix))
    return changed, is_problem


def _problem_below(body: bytes, prefix: bytes) -> bytes:
    return _BEGINNING + prefix + body.removeprefix(_BEGINNING)
