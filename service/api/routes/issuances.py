"""Issuances: ask for a coupon, read where a request stands."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.errors import problem_response, problem_responses
from service.api.request_parsing import JSON, ApiDeps, parse_id, read_body
from service.api.schemas.base import encode
from service.api.schemas.issuances import NewIssuance, issuance_view, receipt_view
from service.domain.errors import Unavailable
from service.domain.request import RequestState, records_ahead
from service.resources import ApiResources
from service.stream.partitioner import partition_of
from service.usecases.lookup import RequestStatus

router = APIRouter(tags=["issuances"])


@router.post(
    "/coupons/{coupon_id}/issuances", status_code=202, responses=problem_responses(404, 409, 413, 415, 422, 503)
)
async def ask(coupon_id: str, request: Request, api: ApiDeps) -> Response:
    """Takes a place in line; 202 once the log has the request. The answer is at `Location`."""
    coupon = parse_id(coupon_id)
    body = await read_body(request, NewIssuance)
    fault = request.headers.get("fault") if api.settings.fault_injection else None
    location, content = await accept_issuance(api, coupon, body, fault)
    return Response(content, 202, {"Location": location}, JSON)


async def accept_issuance(
    api: ApiResources, coupon_id: int, body: NewIssuance, fault: str | None = None
) -> tuple[str, bytes]:
    """Where the answer will be, and what a 202 says."""
    receipt = await api.acceptor.accept(coupon_id, body.user_id, fault)
    return f"/issuances/{receipt.request_id}", encode(receipt_view(receipt))


@router.get("/issuances/{request_id}", responses=problem_responses(404, 503))
async def read(request_id: str, api: ApiDeps) -> Response:
    """Where a request stands; never 404 after a 202."""
    standing = await run_in_threadpool(api.lookup.find, request_id)
    if standing is None:
        return problem_response(404, "unknown_request", "No request with this id was ever accepted.")
    position = await _position(api, standing) if standing.state is RequestState.QUEUED else None
    return Response(encode(issuance_view(standing, position)), media_type="application/json")


async def _position(api: ApiResources, status: RequestStatus) -> int | None:
    """Records ahead in the partition, where the gate knows; only the user's present seat tells an offset."""
    partition = partition_of(status.coupon_id, api.settings.topic_partitions)
    try:
        offset, next_offset = await api.gate.read_offsets(status.coupon_id, status.user_id, partition)
    except Unavailable:
        return None
    return records_ahead(offset, next_offset)
