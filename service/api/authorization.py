"""Decides who may call which route: one table, and one function for the batch path and for FastAPI's routes."""

import re
from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.errors import error_response, to_starlette
from service.domain.caller import Caller, Permission
from service.domain.errors import CouponsError, Forbidden, Unauthenticated
from service.server.problems import PROBLEMS_PATH
from service.usecases.authenticate import Authenticator

_PERMISSIONS: Mapping[tuple[str, str], Permission] = {
    ("POST", "/coupons"): Permission.ADMINISTER,
    ("GET", "/coupons"): Permission.READ_COUPONS,
    ("GET", "/coupons/{coupon_id}"): Permission.READ_COUPONS,
    # to change more than the state, the route requires ADMINISTER
    ("PATCH", "/coupons/{coupon_id}"): Permission.OPERATE,
    ("GET", "/coupons/{coupon_id}/verification"): Permission.READ_OPERATIONS,
    ("GET", "/coupons/{coupon_id}/report"): Permission.READ_OPERATIONS,
    ("GET", "/coupons/{coupon_id}/issuances"): Permission.READ_OPERATIONS,
    ("POST", "/coupons/{coupon_id}/issuances"): Permission.REQUEST,
    # a user's own; the route answers 404 for others
    ("GET", "/issuances/{request_id}"): Permission.READ_REQUESTS,
    ("GET", "/issuances/{request_id}/events"): Permission.READ_REQUESTS,
    # what operators see of it, the route shows to those with READ_OPERATIONS only
    ("GET", "/issuances/{request_id}/history"): Permission.READ_REQUESTS,
    ("GET", "/users/{user_id}/issuances"): Permission.READ_REQUESTS,
    ("POST", "/tickets"): Permission.EXCHANGE,
    ("GET", "/dead-letters"): Permission.READ_OPERATIONS,
    ("GET", "/dead-letters/{dead_letter_id}"): Permission.READ_OPERATIONS,
    ("POST", "/dead-letters/replay"): Permission.OPERATE,
    ("POST", "/dead-letters/{dead_letter_id}/replay"): Permission.OPERATE,
    ("POST", "/dead-letters/{dead_letter_id}/discard"): Permission.OPERATE,
    ("GET", "/healthz"): Permission.PUBLIC,
    # the causes are shown to operators only
    ("GET", "/readyz"): Permission.PUBLIC,
    ("GET", "/alerts"): Permission.READ_OPERATIONS,
    ("GET", "/metrics"): Permission.READ_OPERATIONS,
    ("GET", PROBLEMS_PATH): Permission.PUBLIC,
    ("GET", f"{PROBLEMS_PATH}/{{code}}"): Permission.PUBLIC,
    # the same bytes for every request: what they show is read with the credentials of the user
    ("GET", "/wait/{request_id}"): Permission.PUBLIC,
    ("GET", "/wait-page/{name}"): Permission.PUBLIC,
    ("GET", "/dashboard"): Permission.PUBLIC,
    ("GET", "/dashboard/assets/{name}"): Permission.PUBLIC,
    # who has no session yet opens one, and who has one that is not valid any more ends it
    ("POST", "/dashboard/session"): Permission.PUBLIC,
    ("POST", "/dashboard/session/end"): Permission.PUBLIC,
    ("GET", "/dashboard/session"): Permission.READ_OPERATIONS,
    ("GET", "/dashboard/events"): Permission.READ_OPERATIONS,
    ("GET", "/dashboard/runbooks/{name}"): Permission.READ_OPERATIONS,
}
DOCUMENTATION_FILES = {
    "/swagger/swagger-ui-bundle.js": "application/javascript",
    "/swagger/swagger-ui.css": "text/css",
    "/swagger/favicon-32x32.png": "image/png",
}
"""The files that the page about the API loads, and their media types."""
DOCUMENTATION = frozenset(("GET", path) for path in ("/", "/docs", "/openapi.json", *DOCUMENTATION_FILES))
SESSION_COOKIE = "coupons_session"
"""The cookie with the session of an operator."""
_SESSION = re.compile(rb"(?:^|;) *%b=([A-Za-z0-9_-]+)" % SESSION_COOKIE.encode())
_SAME_SITE = frozenset({b"same-origin", b"none"})
_NOBODY = Caller("nobody", frozenset({Permission.PUBLIC}))


def permissions(*, public_docs: bool) -> dict[tuple[str, str], Permission]:
    """Return what each method and path template requires."""
    of_documentation = Permission.PUBLIC if public_docs else Permission.READ_OPERATIONS
    return {**_PERMISSIONS, **dict.fromkeys(DOCUMENTATION, of_documentation)}


def authorize(
    authenticator: Authenticator,
    headers: Mapping[bytes, bytes],
    method: str,
    needed: Permission,
    allowed_origins: Collection[str],
) -> Caller:
    """Return the caller of a request if it may do what the route needs.

    method: GET also for HEAD.
    allowed_origins: the other sites whose pages may call, as Origin names them.
    headers: the headers by lower-case name. Authorization was sent once; of another one that was repeated this is the
        last value: a page of another site cannot set those that are read here.
    Raises Unauthenticated, Forbidden, or Unavailable if what verifies the credentials was never read.
    """
    credentials = headers.get(b"authorization") or None
    session = None if credentials else read_session(headers)
    try:
        caller = authenticator.authenticate(credentials.decode("latin-1") if credentials else None, session)
    except CouponsError:
        if needed is not Permission.PUBLIC:
            raise
        caller = _NOBODY
    if needed is not Permission.PUBLIC:
        caller.require(needed)
    if method != "GET" and credentials is None:
        if session is None:
            _refuse_other_sites(headers, allowed_origins)
        else:
            _require_own_page(headers)
    return caller


def read_session(headers: Mapping[bytes, bytes]) -> str | None:
    """Return the session that a browser sends with the request, or None."""
    found = _SESSION.search(headers.get(b"cookie", b""))
    return found and found[1].decode()


def _refuse_other_sites(headers: Mapping[bytes, bytes], allowed_origins: Collection[str]) -> None:
    """Raise Forbidden if a browser sends the request for a page of another site that may not call.

    A page can make a browser send a form to any address. It cannot make it add an Authorization header without asking
    the server first (Fetch Standard, CORS preflight), so this concerns requests without one.
    """
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if origin is not None and origin.decode("latin-1") in allowed_origins:
        return
    if site is None:  # a browser without it names the page in Origin; other clients send neither
        is_same = origin is None or origin.partition(b"://")[2] == headers.get(b"host")
    else:
        is_same = site in _SAME_SITE
    if not is_same:
        raise Forbidden("A page of another site cannot send this request.")


def _require_own_page(headers: Mapping[bytes, bytes]) -> None:
    """Raise Forbidden unless a page of this address sends the request: a browser adds a session by itself.

    A page of CORS_ORIGINS may not either, nor a page under another name of the same site. A browser without
    Sec-Fetch-Site names the page in Origin. What names neither is refused.
    """
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin", b"")
    if site != b"same-origin" and (site is not None or origin.partition(b"://")[2] != headers.get(b"host")):
        raise Forbidden("Only the dashboard can send this request with a session. Send an Authorization header.")


class AuthorizationMiddleware:
    """Authorizes every request before its route. What the table does not have is answered 404 or 405 here."""

    def __init__(self, app: ASGIApp, *, public_docs: bool) -> None:
        self._app = app
        table: dict[str, dict[str, Permission]] = {}
        for (method, path), permission in permissions(public_docs=public_docs).items():
            table.setdefault(path, {})[method] = permission
        #: what each method requires, by path without parameters; looked up first: "replay" is no id of a dead letter
        self._fixed = {path: by_method for path, by_method in table.items() if "{" not in path}
        #: the same by pattern of a path with parameters
        self._patterns = [(compile_path(path)[0], by_method) for path, by_method in table.items() if "{" in path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with the caller in `request.state`, or answer with problem details.

        Raises NotImplementedError for a protocol of which the table has no routes, for example WebSocket.
        """
        if scope["type"] == "http":
            if scope["method"] == "HEAD":
                scope, send = {**scope, "method": "GET"}, _head_only(send)
            try:
                needed = self._find(scope)
                headers = _unique(scope["headers"])
                state = scope["state"]
                api = state["api"]
                origins = api.settings.allowed_origins
                state["caller"] = authorize(api.authenticator, headers, scope["method"], needed, origins)
            except Exception as error:  # noqa: BLE001  # answered as the application's exception handlers do
                await to_starlette(error_response(error))(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            raise NotImplementedError(f"nobody is authorized over {scope['type']}")
        await self._app(scope, receive, send)

    def _find(self, scope: Scope) -> Permission:
        """Return what a request requires; raise HTTPException 404 or 405 if the table does not have it.

        A slash that is percent-encoded is no separator (RFC 3986, section 2.2), although the decoded path has it.
        """
        path, method = get_route_path(scope), scope["method"]
        by_method = self._fixed.get(path)
        if by_method is None:
            by_method = next((found for pattern, found in self._patterns if pattern.fullmatch(path)), None)
        if by_method is None or scope["raw_path"].count(b"/") != scope["path"].count("/"):
            raise HTTPException(HTTPStatus.NOT_FOUND)
        if method not in by_method:
            allowed = by_method.keys() | ({"HEAD"} if "GET" in by_method else set())
            raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(allowed))})
        return by_method[method]


def _head_only(send: Send) -> Send:
    """Return a `send` that completes the response with its head, so that no route makes a long body for nobody."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body"})

    return send_head


def _unique(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers by name; raise Unauthenticated if there are several credentials."""
    fields = dict(headers)
    if sum(name == b"authorization" for name, _ in headers) > 1:
        raise Unauthenticated("The request has several Authorization headers.")
    return fields


async def _caller(request: Request) -> Caller:  # a coroutine: FastAPI calls functions in a thread
    return cast(Caller, request.state.caller)


CallerDep = Annotated[Caller, Depends(_caller)]
"""The caller, whom the middleware has authorized."""
