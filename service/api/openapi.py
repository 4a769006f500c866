"""Adds the bodies of requests and responses to the OpenAPI document, from the types that decode and encode them."""

from typing import Any

from fastapi import FastAPI
from msgspec import Struct

from service.api.schemas import coupons, dead_letters, issuances, tickets, verification
from service.api.schemas.base import schema_of
from service.limits import MAX_ID
from service.server.responses import Problem

#: path and method -> type of the request's body, type of the response's body
_BODIES: dict[tuple[str, str], tuple[type[Struct] | None, type[Struct]]] = {
    ("/coupons", "post"): (coupons.NewCoupon, coupons.CouponView),
    ("/coupons", "get"): (None, coupons.CouponPage),
    ("/coupons/{coupon_id}", "get"): (None, coupons.CouponView),
    ("/coupons/{coupon_id}", "patch"): (coupons.CouponPatch, coupons.CouponView),
    ("/coupons/{coupon_id}/verification", "get"): (None, verification.VerificationView),
    ("/coupons/{coupon_id}/issuances", "post"): (issuances.NewIssuance, issuances.ReceiptView),
    ("/tickets", "post"): (tickets.NewTicket, tickets.TicketView),
    ("/issuances/{request_id}", "get"): (None, issuances.IssuanceView),
    ("/dead-letters", "get"): (None, dead_letters.DeadLetterPage),
    ("/dead-letters/{dead_letter_id}", "get"): (None, dead_letters.DeadLetterView),
    ("/dead-letters/replay", "post"): (dead_letters.ReplayRequest, dead_letters.ReplayView),
    ("/dead-letters/{dead_letter_id}/replay", "post"): (None, dead_letters.ReplayedView),
    ("/dead-letters/{dead_letter_id}/discard", "post"): (None, dead_letters.DeadLetterView),
}


def describe_bodies(app: FastAPI) -> None:
    """Replace the schemas in the application's OpenAPI document by those of _BODIES.

    FastAPI's own schemas describe validation errors that this API never sends.
    """
    document: dict[str, Any] = app.openapi()
    bodies = [body for pair in _BODIES.values() for body in pair if body]
    document["components"]["schemas"] = schema_of(*bodies, Problem)
    for (path, method), (request_body, response_body) in _BODIES.items():
        operation = document["paths"][path][method]
        for parameter in operation.get("parameters", []):
            if parameter["name"] in ("coupon_id", "dead_letter_id") and parameter["in"] == "path":
                parameter["schema"] = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
        if request_body:
            operation["requestBody"] = {"required": True, "content": _json_content(request_body)}
        success = next(status for status in operation["responses"] if status.startswith("2"))
        operation["responses"][success]["content"] = _json_content(response_body)


def _json_content(body: type[Struct]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}
