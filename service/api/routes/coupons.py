"""Coupons: make one, read one, list them."""

from contextlib import suppress

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.errors import problem_responses
from service.api.request_parsing import ApiDeps, parse_id, parse_limit, read_body
from service.api.schemas.base import encode
from service.api.schemas.coupons import CouponPage, CouponPatch, NewCoupon, changes_of, coupon_view
from service.api.schemas.verification import verification_view
from service.clock import now_ms
from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.refusal import Refused
from service.domain.request import ReasonCode
from service.resources import ApiResources
from service.store import coupons
from service.store.engine import in_transaction, to_milliseconds

router = APIRouter(tags=["coupons"])


@router.post("/coupons", status_code=201, responses=problem_responses(413, 415, 422, 503))
async def create(request: Request, api: ApiDeps) -> Response:
    """Makes a coupon; it may be asked for from `opens_at` (null: at once) to `closes_at` (null: for ever)."""
    body = await read_body(request, NewCoupon)
    coupon = await run_in_threadpool(_create, api, body)
    return Response(
        encode(coupon_view(coupon, now_ms())), 201, {"Location": f"/coupons/{coupon.id}"}, "application/json"
    )


@router.get("/coupons", responses=problem_responses(422, 503))
def page(api: ApiDeps, cursor: str | None = None, limit: str = "50") -> Response:
    """A page of coupons in id order, at most 500; `cursor` is the `next` of the page before."""
    size = parse_limit(limit)
    with in_transaction(api.engine) as tx:
        found = coupons.page(tx, parse_id(cursor) if cursor is not None else 0, size + 1)
    more = str(found[size - 1].id) if len(found) > size else None
    views = [coupon_view(coupon, now_ms()) for coupon in found[:size]]
    return Response(encode(CouponPage(views, more)), media_type="application/json")


@router.get("/coupons/{coupon_id}", responses=problem_responses(404, 422, 503))
def read(coupon_id: str, api: ApiDeps) -> Response:
    """A coupon with its counters as of now."""
    with in_transaction(api.engine) as tx:
        coupon = coupons.get(tx, parse_id(coupon_id))
    if coupon is None:
        raise Refused(ReasonCode.UNKNOWN_COUPON)
    return Response(encode(coupon_view(coupon, now_ms())), media_type="application/json")


@router.patch("/coupons/{coupon_id}", responses=problem_responses(404, 409, 413, 415, 422, 503))
async def change(coupon_id: str, request: Request, api: ApiDeps) -> Response:
    """Changes what is named; it counts from the first request that is not decided yet, and a repeat changes nothing.

    `paused` lets nobody new into the line; `closed` refuses also those in line who are not decided yet; `open` ends
    either. Seats of a raised quantity go to those on standby first.
    """
    body = await read_body(request, CouponPatch)
    coupon = await run_in_threadpool(api.coupons.change, parse_id(coupon_id), changes_of(body))
    return Response(encode(coupon_view(coupon, now_ms())), media_type="application/json")


@router.get("/coupons/{coupon_id}/verification", responses=problem_responses(404, 422, 503))
def verification(coupon_id: str, api: ApiDeps) -> Response:
    """Proves P1 to P5 for the coupon, from the log's first record and the database; it takes as long as the log is.

    One proof at a time: who asks meanwhile is told to come again.
    """
    number = parse_id(coupon_id)
    with in_transaction(api.engine) as tx:
        if coupons.get(tx, number) is None:
            raise Refused(ReasonCode.UNKNOWN_COUPON)
    return Response(encode(verification_view(api.verifier.verify(coupon_id=number))), media_type="application/json")


def _create(api: ApiResources, body: NewCoupon) -> Coupon:
    with in_transaction(api.engine) as tx:
        coupon = coupons.create(
            tx,
            body.name,
            body.quantity,
            body.waitlist,
            None if body.opens_at is None else to_milliseconds(body.opens_at),
            None if body.closes_at is None else to_milliseconds(body.closes_at),
        )
    with suppress(Unavailable):  # without Redis now, the first request fills the gate
        api.gate_filler.fill(coupon.id)
    return coupon
