"""Coupons: make one, read one, list them."""

from contextlib import suppress

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.bodies import CouponPage, NewCoupon, coupon_view, encode
from service.api.problems import Invalid, openapi_problems
from service.api.reading import Parts, parse_id, read_body
from service.bootstrap import Api, now_ms
from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.refusal import Refused
from service.domain.request import Code
from service.store import coupons
from service.store.engine import answering, milliseconds

router = APIRouter(tags=["coupons"])
_PAGE = 50
_PAGE_MOST = 500


@router.post("/coupons", status_code=201, responses=openapi_problems(413, 415, 422, 503))
async def create(request: Request, api: Parts) -> Response:
    """Makes a coupon; it may be asked for from `opens_at` (null: at once) to `closes_at` (null: for ever)."""
    body = await read_body(request, NewCoupon)
    coupon = await run_in_threadpool(_create, api, body)
    return Response(
        encode(coupon_view(coupon, now_ms())), 201, {"Location": f"/coupons/{coupon.id}"}, "application/json"
    )


@router.get("/coupons", responses=openapi_problems(422, 503))
def page(api: Parts, cursor: str | None = None, limit: str = str(_PAGE)) -> Response:
    """A page of coupons in id order, at most 500; `cursor` is the `next` of the page before."""
    size = parse_id(limit)
    if size > _PAGE_MOST:
        raise Invalid(f"limit may be {_PAGE_MOST} at most")
    with answering(api.engine) as tx:
        found = coupons.page(tx, parse_id(cursor) if cursor is not None else 0, size + 1)
    more = str(found[size - 1].id) if len(found) > size else None
    views = [coupon_view(coupon, now_ms()) for coupon in found[:size]]
    return Response(encode(CouponPage(views, more)), media_type="application/json")


@router.get("/coupons/{coupon_id}", responses=openapi_problems(404, 422, 503))
def read(coupon_id: str, api: Parts) -> Response:
    """A coupon with its counters as of now."""
    with answering(api.engine) as tx:
        coupon = coupons.get(tx, parse_id(coupon_id))
    if coupon is None:
        raise Refused(Code.UNKNOWN_COUPON)
    return Response(encode(coupon_view(coupon, now_ms())), media_type="application/json")


def _create(api: Api, body: NewCoupon) -> Coupon:
    with answering(api.engine) as tx:
        coupon = coupons.create(
            tx,
            body.name,
            body.quantity,
            body.waitlist,
            None if body.opens_at is None else milliseconds(body.opens_at),
            None if body.closes_at is None else milliseconds(body.closes_at),
        )
    with suppress(Unavailable):  # without Redis now, the first request fills the gate
        api.warmer.warm(coupon.id)
    return coupon
