"""The operators' page with its files, its session and its stream. What it shows and does else is the public API's."""

from typing import Annotated

from fastapi import APIRouter, Header, HTTPException, Request, Response

from service.api.authorization import SESSION_COOKIE, CallerDep, read_session
from service.api.overview_stream import OverviewStream
from service.api.page_files import PAGE_POLICY, PageFiles
from service.api.request_parsing import JSON, ApiDeps, read_body
from service.api.runbook_pages import render_runbook
from service.api.schemas.dashboard import NewSession, session_view
from service.clock import now_ms
from service.domain.caller import Permission
from service.domain.errors import CouponsError, Forbidden, RateLimited, Unauthenticated
from service.log import get_logger
from service.log_events import LogEvent
from service.server.responses import encode

router = APIRouter(include_in_schema=False)
_FILES = PageFiles("dashboard")
_POLICY = f"{PAGE_POLICY} 'none'"
_log = get_logger(__name__)
IfNoneMatch = Annotated[str | None, Header()]


@router.get("/dashboard")
async def page(if_none_match: IfNoneMatch = None) -> Response:
    """Return the page, which shows nothing without a session."""
    return _FILES.send_page("dashboard.html", if_none_match, _POLICY)


@router.get("/dashboard/assets/{name}")
async def asset(name: str, if_none_match: IfNoneMatch = None) -> Response:
    """Return a file of the page."""
    return _FILES.send_asset(name, if_none_match)


@router.get("/dashboard/runbooks/{name}")
async def runbook(name: str) -> Response:
    """Return the page that says what to do about an alert; README lists them all."""
    try:
        page = render_runbook(name)
    except KeyError:
        raise HTTPException(404) from None
    headers = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
    return Response(page, headers=headers, media_type="text/html")


@router.get("/dashboard/session")
async def show_session(api: ApiDeps, caller: CallerDep) -> Response:
    """Return who is logged in, and what this caller may do."""
    return Response(encode(session_view(caller, authentication=api.authenticator.enabled)), media_type=JSON)


@router.post("/dashboard/session", status_code=204)
async def log_in(request: Request, api: ApiDeps) -> Response:
    """Exchange the API key of an operator for a session, which the browser keeps in a cookie.

    The key is looked up in memory first, so that nobody can lock an operator out. A failure is charged to the limits.
    Raises RateLimited for one above them, which is not logged.
    """
    body = await read_body(request, NewSession)
    dashboard = api.dashboard
    address = dashboard.client_addresses.find(request.client, request.headers.raw)
    try:
        session, opened = api.authenticator.open_session(body.key)
    except (Unauthenticated, Forbidden) as error:
        if exceeded := dashboard.failed_logins.charge(0, address):
            raise RateLimited(exceeded) from None
        _log.warning(LogEvent.SESSION_REFUSED, address=address, reason=str(error))
        raise
    _log.info(LogEvent.SESSION_OPENED, address=address, key=opened.key_prefix)
    return _with_cookie(request, session, opened.expires_at - now_ms() // 1000)


@router.post("/dashboard/session/end", status_code=204)
async def log_out(request: Request) -> Response:
    """Delete the cookie. The session itself ends with its time or its API key."""
    return _with_cookie(request, "", 0)


def _with_cookie(request: Request, session: str, max_age: int) -> Response:
    """Return a response that sets the cookie.

    A proxy ends TLS, so the page's own address says whether the browser uses https: it is in Origin.
    """
    response = Response(status_code=204)
    is_secure = request.headers.get("origin", "").startswith("https://")
    path = request.scope["root_path"] or "/"  # other applications of the same host do not get it
    response.set_cookie(
        SESSION_COOKIE, session, max_age=max_age, path=path, secure=is_secure, httponly=True, samesite="strict"
    )
    return response


@router.get("/dashboard/events")
async def follow(request: Request, api: ApiDeps) -> Response:
    """Send the overview once a second, as events `overview`, for as long as the credentials are valid."""
    authorization, session = request.headers.get("authorization"), read_session(dict(request.headers.raw))

    def is_authorized() -> bool:
        try:
            caller = api.authenticator.authenticate(authorization, session)
        except CouponsError:
            return False
        return Permission.READ_OPERATIONS in caller.permissions

    return OverviewStream(api.dashboard.feed, is_authorized)
