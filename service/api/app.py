"""The application: routes, error handling and the clients' lifetime."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

import msgspec
from fastapi import FastAPI
from fastapi_swagger import patch_fastapi

from service import resources
from service.api import errors
from service.api.routes import coupons, dead_letters, health, issuances
from service.api.schemas import base
from service.api.schemas import coupons as coupon_bodies
from service.api.schemas import dead_letters as letter_bodies
from service.api.schemas import issuances as issuance_bodies
from service.api.schemas import verification as verification_bodies
from service.domain.coupon import MAX_ID


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str


class State(TypedDict):
    """What handlers find in request.state."""

    api: resources.ApiResources


def create_app(common: resources.Resources) -> FastAPI:
    """The application; its own clients live as long as its lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with resources.open_api_resources(common) as api:
            yield {"api": api}

    app = FastAPI(
        title="Coupons, first come, first served",
        version="0.1.0",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
    )
    patch_fastapi(app)  # the page's own files come from here, so it loads where nothing else does
    errors.install_error_handlers(app)
    for room in (coupons, issuances, dead_letters, health):
        app.include_router(room.router)
    _describe(app)
    return app


#: path and method to the body it takes and the one it answers with
_BODIES: dict[tuple[str, str], tuple[type[msgspec.Struct] | None, type[msgspec.Struct]]] = {
    ("/coupons", "post"): (coupon_bodies.NewCoupon, coupon_bodies.CouponView),
    ("/coupons", "get"): (None, coupon_bodies.CouponPage),
    ("/coupons/{coupon_id}", "get"): (None, coupon_bodies.CouponView),
    ("/coupons/{coupon_id}", "patch"): (coupon_bodies.CouponPatch, coupon_bodies.CouponView),
    ("/coupons/{coupon_id}/verification", "get"): (None, verification_bodies.VerificationView),
    ("/coupons/{coupon_id}/issuances", "post"): (issuance_bodies.NewIssuance, issuance_bodies.ReceiptView),
    ("/issuances/{request_id}", "get"): (None, issuance_bodies.IssuanceView),
    ("/dead-letters", "get"): (None, letter_bodies.DeadLetterPage),
    ("/dead-letters/{dead_letter_id}", "get"): (None, letter_bodies.DeadLetterView),
    ("/dead-letters/replay", "post"): (letter_bodies.ReplayRequest, letter_bodies.ReplayView),
    ("/dead-letters/{dead_letter_id}/replay", "post"): (None, letter_bodies.ReplayedView),
    ("/dead-letters/{dead_letter_id}/discard", "post"): (None, letter_bodies.DeadLetterView),
}


def _describe(app: FastAPI) -> None:
    """Puts the bodies' own schemas into the OpenAPI document, so that there is no second description to keep true."""
    document: dict[str, Any] = app.openapi()
    kinds = [kind for pair in _BODIES.values() for kind in pair if kind]
    # FastAPI's own schemas would describe errors that are never given
    document["components"]["schemas"] = base.schema_of(*kinds, Problem)
    for (path, method), (taken, given) in _BODIES.items():
        operation = document["paths"][path][method]
        for parameter in operation.get("parameters", []):
            if parameter["name"] in ("coupon_id", "dead_letter_id") and parameter["in"] == "path":
                parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
        if taken:
            operation["requestBody"] = {"required": True, "content": _json(taken)}
        success = next(status for status in operation["responses"] if status.startswith("2"))
        operation["responses"][success]["content"] = _json(given)


def _json(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
