"""Issuances: request a coupon, read the state of a request."""

from contextlib import suppress

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.authorization import CallerDep
from service.api.errors import to_starlette
from service.api.request_parsing import JSON, ApiDeps, parse_id, read_body
from service.api.schemas.issuances import NewIssuance, issuance_view, receipt_view
from service.domain.error_code import ErrorCode
from service.domain.errors import NotFound, Unavailable
from service.domain.request import RequestState, records_ahead
from service.server.problems import PROBLEMS
from service.server.responses import NO_STORE, RenderedResponse, encode
from service.stream.partitioner import partition_of
from service.usecases.accept import Receipt

router = APIRouter(tags=["issuances"])
_CONTENT_TYPE = (b"content-type", JSON.encode())


def accepted_response(receipt: Receipt) -> RenderedResponse:
    """Render the 202."""
    content = encode(receipt_view(receipt))
    location = b"/issuances/%b" % receipt.request_id.encode()
    headers = [(b"location", location), NO_STORE, (b"content-length", b"%d" % len(content)), _CONTENT_TYPE]
    return RenderedResponse(202, headers, content)


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
async def read(request_id: str, api: ApiDeps, caller: CallerDep) -> Response:
    """Read the state of a request; never 404 after a 202."""
    found = await run_in_threadpool(api.lookup.find, request_id)
    if found is None or not caller.may_see(found.user_id):
        raise NotFound(ErrorCode.UNKNOWN_REQUEST, PROBLEMS[ErrorCode.UNKNOWN_REQUEST].detail)
    position = None
    if found.state is RequestState.QUEUED:
        partition = partition_of(found.coupon_id, api.settings.topic_partitions)
        # The gate has the offset only while the request has the user's seat. It is lost with Redis's data, and a fill
        # does not restore it.
        with suppress(Unavailable):
            offset, next_offset = await api.gate.read_offsets(found.coupon_id, found.user_id, partition)
            position = records_ahead(offset, next_offset)
    return Response(encode(issuance_view(found, position)), media_type=JSON)
