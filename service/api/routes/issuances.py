"""Issuances: request a coupon, read the state of a request."""

import math
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from service.api.authorization import CallerDep
from service.api.entity_tags import matches, weak_tag
from service.api.errors import to_starlette
from service.api.event_stream import IssuanceEventStream, final_event_id
from service.api.request_parsing import JSON, ApiDeps, parse_id, read_body
from service.api.schemas.history import history_view
from service.api.schemas.issuances import NewIssuance, issuance_view, receipt_view
from service.api_resources import ApiResources
from service.clock import jitter, now_ms
from service.domain.caller import Caller, Permission
from service.domain.error_code import ErrorCode
from service.domain.errors import NotFound
from service.domain.request_history import for_user
from service.domain.waiting import refresh_after_seconds
from service.server.problems import PROBLEMS
from service.server.responses import NO_STORE, RenderedResponse, encode
from service.usecases.accept import Receipt
from service.usecases.progress_watch import IssuanceStatus

router = APIRouter(tags=["issuances"])
_CONTENT_TYPE = (b"content-type", JSON.encode())
_PRIVATE = (b"cache-control", b"private, no-cache")


def accepted_response(receipt: Receipt) -> RenderedResponse:
    """Render the 202."""
    content = encode(receipt_view(receipt))
    location = b"/issuances/%b" % receipt.request_id.encode()
    headers = [(b"location", location), NO_STORE, (b"content-length", b"%d" % len(content)), _CONTENT_TYPE]
    return RenderedResponse(202, headers, content)


async def status_response(
    request_id: str, api: ApiResources, caller: Caller, if_none_match: str | None
) -> RenderedResponse:
    """Look a request of the caller's up, and render its state: 304 if the header `if_none_match` names its tag.

    Raises NotFound, and what the look-up raises.
    """
    status = await _find(request_id, api, caller)
    tag = weak_tag(encode(issuance_view(status)))
    headers = [(b"etag", tag.encode()), _PRIVATE]
    if matches(tag, if_none_match):
        return RenderedResponse(304, headers, b"")
    waited_seconds = (now_ms() - status.request.requested_at_ms) / 1000
    refresh = refresh_after_seconds(status.request.state, waited_seconds, status.prospect.eta_seconds, jitter())
    content = encode(issuance_view(status, refresh))
    headers += [(b"content-length", b"%d" % len(content)), _CONTENT_TYPE]
    return RenderedResponse(200, headers, content)


@router.post("/coupons/{coupon_id}/issuances", status_code=202)
async def ask(coupon_id: str, request: Request, api: ApiDeps, caller: CallerDep) -> Response:
    """Request a coupon for a user; 202 once the request is in the log. Its state is at `Location`."""
    fault = request.headers.get("fault") if api.settings.fault_injection else None
    number = parse_id(coupon_id, "coupon_id")
    body = await read_body(request, NewIssuance)
    address = api.client_addresses.find(request.client, request.headers.raw) if api.client_addresses else ""
    user_id = caller.choose_user(body.user)
    return to_starlette(accepted_response(await api.acceptor.accept(number, user_id, address, fault)))


@router.get("/issuances/{request_id}")
async def read(
    request_id: str, api: ApiDeps, caller: CallerDep, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """Read the state of a request; never 404 after a 202.

    Ask again after `refresh_after_seconds`. With the ETag of the last response in `If-None-Match`, the response is 304
    while nothing has changed; then ask again after the same time.
    """
    return to_starlette(await status_response(request_id, api, caller, if_none_match))


@router.get("/issuances/{request_id}/events")
async def follow(
    request_id: str,
    request: Request,
    api: ApiDeps,
    caller: CallerDep,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Follow a request until its final state, as server-sent events.

    - `state`: the state of the request, first and after every change of it, of its offset or of its outlook; data as of
      `GET /issuances/{request_id}`.
    - `progress`: `partition`, `next_offset` and `records_per_second` (`min` and `max`, or null), when the partition has
      moved or its rate is no longer known; the id is `next_offset`. The position of the request is its `offset` -
      `next_offset`, but not below 0.
    - `final`: the final state; the stream ends.
    - `unknown`: the request certainly was not accepted; data is a problem. The stream ends.

    A comment is sent when nothing else was for 15 seconds. A stream ends after 54 to 60 minutes, when the credentials
    expire, or when the process shuts down: connect again after the milliseconds in `retry`. With the id of a `final`
    event in `Last-Event-ID` the response is 204, so that a browser does not connect again. A user may have six streams.
    """
    status = await _find(request_id, api, caller)
    if last_event_id is not None and last_event_id == final_event_id(status.request):
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    seconds = math.inf if caller.expires_at is None else caller.expires_at - now_ms() / 1000
    return IssuanceEventStream(api.events, status, seconds, request.scope["root_path"])


@router.get("/issuances/{request_id}/history")
async def history(request_id: str, api: ApiDeps, caller: CallerDep) -> Response:
    """Show what happened to a request, from its acceptance to the notices about it.

    Operators see all of it. For them the time of the append is read from the log, if no table has it any more.
    """
    status = await _find(request_id, api, caller)
    if Permission.READ_OPERATIONS in caller.permissions:
        found = await api.operators.run(api.histories.read, status.request, with_log=True)
    else:
        found = await api.user_lists.run(api.histories.read, status.request, with_log=False)
        found = found._replace(events=for_user(found.events))
    return Response(encode(history_view(found)), media_type=JSON)


async def _find(request_id: str, api: ApiResources, caller: Caller) -> IssuanceStatus:
    """Return a request of the caller's; raise NotFound, for another user's without a look-up."""
    owner = api.statuses.owner_of(request_id)
    status = await api.statuses.read(request_id) if owner is None or caller.may_see(owner) else None
    if status is None or not caller.may_see(status.request.user_id):
        raise NotFound(ErrorCode.UNKNOWN_REQUEST, PROBLEMS[ErrorCode.UNKNOWN_REQUEST].detail)
    return status
