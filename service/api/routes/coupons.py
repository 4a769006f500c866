"""Routes that create, list, show, change and verify coupons."""

from collections.abc import Mapping
from functools import partial
from operator import attrgetter
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from service.api.authorization import CallerDep
from service.api.pages import PageQueryDep, cut_page, page_response
from service.api.request_parsing import (
    JSON,
    ApiDeps,
    IdempotencyKeyDep,
    parse_choice,
    parse_id,
    parse_if_match,
    parse_name_part,
    read_body,
    wait_until_gone,
)
from service.api.schemas.coupons import (
    ARCHIVED,
    ArchivedChoice,
    CouponPage,
    CouponPatch,
    NewCoupon,
    changes_of,
    coupon_view,
)
from service.api.schemas.verification import verification_view
from service.cancellation import Cancellation
from service.clock import now_ms
from service.domain.caller import Permission
from service.domain.coupon import Coupon, CouponFilter, CouponState
from service.server.responses import encode
from service.timestamps import to_milliseconds
from service.verification.verify import Check

router = APIRouter(tags=["coupons"])


@router.post("/coupons", status_code=201)
async def create(request: Request, api: ApiDeps, caller: CallerDep, key: IdempotencyKeyDep) -> Response:
    """Create a coupon. Users can request it from `opens_at` (null: at once) until `closes_at` (null: no end).

    A repeat with the same `Idempotency-Key` and the same values creates no second coupon: it returns the one that the
    first request created, as it is now. Two at the same time wait for each other. A key belongs to the API key that
    sends it and is known for seven days at least. A request that was refused does not use its key up.
    """
    body = await read_body(request, NewCoupon)
    opens_at_ms = None if body.opens_at is None else to_milliseconds(body.opens_at)
    closes_at_ms = None if body.closes_at is None else to_milliseconds(body.closes_at)
    service = api.coupons.acting_as(caller.name)
    values = (body.name, body.quantity, body.waitlist, opens_at_ms, closes_at_ms)
    coupon = await api.operators.run(service.create, *values, key)
    return _shown(coupon, 201, {"Location": f"/coupons/{coupon.id}"})


@router.get("/coupons")
async def page(
    request: Request,
    api: ApiDeps,
    query: PageQueryDep,
    name: str | None = None,
    state: str | None = None,
    archived: str = ArchivedChoice.FALSE,
) -> Response:
    """List coupons in id order, at most 500 a page; `cursor` is `next` of the previous page, and `Link` leads there.

    `name` selects those whose name contains the text, in upper or lower case; `state` those that are in this state when
    the page is made. Archived coupons are left out unless `archived` asks for them.
    """
    at_ms = now_ms()
    filters = CouponFilter(
        None if name is None else parse_name_part(name),
        None if state is None else parse_choice("state", state, CouponState),
        ARCHIVED[parse_choice("archived", archived, ArchivedChoice)],
        at_ms,
    )
    found = await api.user_lists.run(api.coupons.list_page, filters, query.after or 0, query.size + 1)
    shown, cursor = cut_page(found, query.size, attrgetter("id"))
    return page_response(request, CouponPage([coupon_view(coupon, at_ms) for coupon in shown], cursor))


@router.get("/coupons/{coupon_id}")
def read(coupon_id: str, api: ApiDeps) -> Response:
    """Return a coupon with its current counters. Its ETag changes when it is changed, not when it is issued."""
    return _shown(api.coupons.get(parse_id(coupon_id, "coupon_id")))


@router.patch("/coupons/{coupon_id}")
async def change(
    coupon_id: str,
    request: Request,
    api: ApiDeps,
    caller: CallerDep,
    if_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Change the fields that the body contains. A repeat changes nothing.

    With the ETag of a coupon in `If-Match`, the change is refused with 412 if another one was made since it was read.

    A closed coupon can be archived: lists leave it out, and it stays closed until `archived` is set to false.

    A new quantity and a close apply to all undecided requests. A new window and a pause apply to new requests and
    undecided foreign records. `paused` refuses new requests; `closed` also refuses accepted requests that are not
    decided yet; `open` reverts both. Seats that a higher quantity adds go to requests on standby first. An operator's
    key may change `state`; an administrator's key may change everything.
    """
    number = parse_id(coupon_id, "coupon_id")
    changes = changes_of(await read_body(request, CouponPatch), now_ms())
    if changes.keys() - {"override"}:
        caller.require(Permission.ADMINISTER)
    service = api.coupons.acting_as(caller.name)
    return _shown(await api.operators.run(service.change, number, changes, parse_if_match(if_match)))


def _shown(coupon: Coupon, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return the coupon with its version as entity tag."""
    tagged = {"ETag": f'"{coupon.version}"', **(headers or {})}
    return Response(encode(coupon_view(coupon, now_ms())), status, tagged, JSON)


@router.get("/coupons/{coupon_id}/verification")
async def verification(coupon_id: str, request: Request, api: ApiDeps) -> Response:
    """Verify P1 to P5 for the coupon. Reads the whole log and the database.

    The time it takes grows with the log. Each API process runs one verification at a time; another call is refused at
    once with 429 `too_busy`. A client that closes its connection ends the verification.
    """
    number = parse_id(coupon_id, "coupon_id")

    def verify(cancellation: Cancellation) -> list[Check]:
        api.coupons.get(number)  # raises NotFound
        return api.verifier.verify(coupon_id=number, cancellation=cancellation)

    checks = await api.verifications.run(verify, partial(wait_until_gone, request))
    return Response(encode(verification_view(checks)), media_type=JSON)
