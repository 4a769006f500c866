"""Issuances: request a coupon, read the state of a request."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.errors import error_response, problem_responses
from service.api.request_parsing import JSON, ApiDeps, parse_id, read_body
from service.api.schemas.base import encode
from service.api.schemas.issuances import NewIssuance, issuance_view, receipt_view
from service.domain.errors import NotFound, Unavailable
from service.domain.request import RequestState, records_ahead
from service.resources import ApiResources
from service.stream.partitioner import partition_of

router = APIRouter(tags=["issuances"])
_CONTENT_TYPE = (b"content-type", JSON.encode())


class RenderedResponse(NamedTuple):
    """A response as ASGI sends it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


async def accept_issuance(
    api: ApiResources, coupon_id: str, read: Callable[[], Awaitable[NewIssuance]], fault: str | None = None
) -> RenderedResponse:
    """Accept a coupon request. Return 202 after Kafka has acknowledged the record, otherwise problem details.

    The fast path and the FastAPI route both delegate to this function.

    coupon_id: as it stands in the path.
    read: reads and validates the body; called once the coupon id is valid.
    fault: a failure for the issuer to inject; None outside tests.
    """
    try:
        number = parse_id(coupon_id)
        body = await read()
        receipt = await api.acceptor.accept(number, body.user_id, fault)
    except Exception as error:  # noqa: BLE001  # rendered as the application's exception handlers do
        problem = error_response(error)
        return RenderedResponse(problem.status_code, problem.raw_headers, bytes(problem.body))
    content = encode(receipt_view(receipt))
    location = b"/issuances/%b" % receipt.request_id.encode()
    headers = [(b"location", location), (b"content-length", b"%d" % len(content)), _CONTENT_TYPE]
    return RenderedResponse(202, headers, content)


@router.post(
    "/coupons/{coupon_id}/issuances", status_code=202, responses=problem_responses(404, 409, 413, 415, 422, 503)
)
async def ask(coupon_id: str, request: Request, api: ApiDeps) -> Response:
    """Request a coupon for a user; 202 once the request is in the log. Its state is at `Location`."""
    fault = request.headers.get("fault") if api.settings.fault_injection else None
    status, headers, body = await accept_issuance(api, coupon_id, partial(read_body, request, NewIssuance), fault)
    response = Response(body, status)
    response.raw_headers = headers
    return response


@router.get("/issuances/{request_id}", responses=problem_responses(404, 503))
async def read(request_id: str, api: ApiDeps) -> Response:
    """Read the state of a request; never 404 after a 202."""
    found = await run_in_threadpool(api.lookup.find, request_id)
    if found is None:
        raise NotFound("unknown_request", "No request with this id was ever accepted.")
    position = None
    if found.state is RequestState.QUEUED:
        partition = partition_of(found.coupon_id, api.settings.topic_partitions)
        # The gate has the offset only while the request has the user's seat. It is lost with Redis's data, and a fill
        # does not restore it.
        with suppress(Unavailable):
            offset, next_offset = await api.gate.read_offsets(found.coupon_id, found.user_id, partition)
            position = records_ahead(offset, next_offset)
    return Response(encode(issuance_view(found, position)), media_type=JSON)
