"""The application: routes, error handling and the clients' lifetime."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict

import msgspec
from fastapi import FastAPI
from fastapi_swagger import patch_fastapi

from service import bootstrap
from service.api import bodies, coupons, health, issuances, problems
from service.domain.coupon import ID_MOST


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

    api: bootstrap.Api


def create(common: bootstrap.Common) -> FastAPI:
    """The application; its own clients live as long as its lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with bootstrap.build_api(common) as api:
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
    problems.install(app)
    for room in (coupons, issuances, health):
        app.include_router(room.router)
    _describe(app)
    return app


#: path and method to the body it takes and the one it answers with
_BODIES = {
    ("/coupons", "post"): ("NewCoupon", "CouponView"),
    ("/coupons", "get"): (None, "CouponPage"),
    ("/coupons/{coupon_id}", "get"): (None, "CouponView"),
    ("/coupons/{coupon_id}/issuances", "post"): ("NewIssuance", "ReceiptView"),
    ("/issuances/{request_id}", "get"): (None, "IssuanceView"),
}


def _describe(app: FastAPI) -> None:
    """Puts the bodies' own schemas into the OpenAPI document, so that there is no second description to keep true."""
    document: dict[str, Any] = app.openapi()
    kinds = (
        bodies.NewCoupon,
        bodies.NewIssuance,
        bodies.CouponView,
        bodies.CouponPage,
        bodies.ReceiptView,
        bodies.IssuanceView,
        Problem,
    )
    document["components"]["schemas"] = bodies.schema_of(*kinds)  # FastAPI's own would describe errors never given
    for (path, method), (taken, given) in _BODIES.items():
        operation = document["paths"][path][method]
        for parameter in operation.get("parameters", []):
            if parameter["name"] == "coupon_id":
                parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": ID_MOST}
        if taken:
            operation["requestBody"] = {"required": True, "content": _json(taken)}
        success = next(status for status in operation["responses"] if status.startswith("2"))
        operation["responses"][success]["content"] = _json(given)


def _json(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
