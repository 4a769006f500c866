"""Describes the paths that FastAPI finds in the OpenAPI document, from the types and tables that serve them."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import groupby
from typing import Any

import msgspec
from fastapi import FastAPI
from msgspec import Struct

from service.api.authorization import permissions
from service.api.operations import ERRORS_OF_ALL, HEADERS, OPERATIONS, PARAMETERS, Operation
from service.api.request_parsing import JSON
from service.api.schemas import health
from service.api.schemas.base import schema_of
from service.domain.caller import Permission
from service.domain.error_code import ErrorCode
from service.server.problems import PROBLEMS
from service.server.responses import PROBLEM_JSON, Problem, make_problem

_DESCRIPTION = """Issues limited coupons first come, first served.

A request for a coupon is answered 202 once it is in the log; it is decided in the order of the log. `Location` shows
its state. Times are RFC 3339 in UTC. Every error is a problem (RFC 9457), whose `code` programs can rely on.
"""
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A user's token (JWT), a ticket in exchange for it, or the API key of a back end or an operator.",
}
EXAMPLE_PROBLEM_ID = "92ad1b6b9fd4a2f1"
_TAGS = {
    "coupons": "What is issued: how many, when, and in which state.",
    "issuances": "Requests of users for a coupon.",
    "reports": "How a coupon was sold, and every request for it.",
    "tickets": "Credentials that cost less to verify than a token.",
    "dead letters": "Requests that were given up, and what operators do with them.",
    "health": "Liveness, readiness, alerts and metrics.",
}


def describe(app: FastAPI) -> None:
    """Complete the application's OpenAPI document: an operation that OPERATIONS lacks raises KeyError.

    FastAPI's own schemas describe validation errors that this API never sends.
    """
    document: dict[str, Any] = app.openapi()
    document["info"]["description"] = _DESCRIPTION
    document["tags"] = [{"name": name, "description": text} for name, text in _TAGS.items()]
    bodies = [body for operation in OPERATIONS.values() for body in (operation.request, operation.response) if body]
    document["components"] = {
        "schemas": schema_of(*bodies, Problem),
        "securitySchemes": {"bearer": _BEARER},
        "responses": {_name(code): _problem_response(PROBLEMS[code].status, [code]) for code in PROBLEMS},
    }
    needed = permissions(public_docs=False)
    for path, by_method in document["paths"].items():
        for method, described in by_method.items():
            route = (method.upper(), path)
            _describe_operation(described, OPERATIONS[route], needed[route])


def _describe_operation(described: dict[str, Any], operation: Operation, needed: Permission) -> None:
    described["operationId"] = operation.id
    described["summary"] = operation.id.replace("_", " ").capitalize()
    described["security"] = [{"bearer": []}]
    errors = {*ERRORS_OF_ALL, *operation.errors}
    if needed is Permission.PUBLIC:
        described["security"].insert(0, {})
    else:
        described["description"] += f"\n\nRequires the permission `{needed}`."
        errors |= {ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN}
    parameters = {**PARAMETERS, **(operation.parameters or {})}
    for parameter in described.get("parameters", []):
        parameter["description"], parameter["schema"] = parameters[parameter["name"]]
        if parameter["in"] == "path":
            errors.add(ErrorCode.NOT_FOUND)
    if operation.request:
        content = {**_content(operation.request)[JSON], "example": operation.example}
        described["requestBody"] = {"required": True, "content": {JSON: content}}
        errors.add(ErrorCode.UNSUPPORTED_MEDIA_TYPE)
    success = next(status for status in described["responses"] if status.startswith("2"))
    without_body = {status: {"description": text} for status, text in operation.without_body.items()}
    described["responses"] = {success: _success(operation), **without_body, **_problems(errors)}
    if operation.response is health.ReadinessView:
        not_ready = _problem_response(HTTPStatus.SERVICE_UNAVAILABLE, [ErrorCode.UNAVAILABLE])
        content = {**_content(operation.response), **not_ready["content"]}
        described["responses"]["503"] = {"description": "A part is missing.", "content": content}


def _success(operation: Operation) -> dict[str, Any]:
    body = operation.response
    as_text = {media_type: {"schema": {"type": "string"}} for media_type in operation.text_types}
    return {
        "description": body.__doc__ if body else operation.text,
        "content": _content(body) if body else as_text,
        "headers": {name: _header(name, required=name != "Link") for name in ("Cache-Control", *operation.headers)},
        "links": {
            target: {"operationId": target, "parameters": {parameter: f"$response.body#/{field}"}}
            for target, (parameter, field) in (operation.links or {}).items()
        },
    }


def _content(body: type[Struct]) -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}}


def _problems(errors: Iterable[ErrorCode]) -> dict[str, Any]:
    """Describe the errors, by status."""
    responses = {}
    for status, group in groupby(sorted(errors, key=_status), _status):
        codes = list(group)
        responses[str(int(status))] = (
            _problem_response(status, codes)
            if len(codes) > 1
            else {"$ref": f"#/components/responses/{_name(codes[0])}"}
        )
    return responses


def _problem_response(status: HTTPStatus, codes: Sequence[ErrorCode]) -> dict[str, Any]:
    """Describe a status with these errors; a header is required if all of them have it."""
    headers = [("Cache-Control", *PROBLEMS[code].headers) for code in codes]
    return {
        "description": status.phrase,
        "headers": {
            name: _header(name, required=all(name in some for some in headers))
            for name in sorted({name for some in headers for name in some})
        },
        "content": {
            PROBLEM_JSON: {
                "schema": {"$ref": f"#/components/schemas/{Problem.__name__}"},
                "examples": {
                    code.value: {"value": msgspec.to_builtins(make_problem(code, None, EXAMPLE_PROBLEM_ID))}
                    for code in codes
                },
            }
        },
    }


def _name(code: ErrorCode) -> str:
    return code.title().replace("_", "")


def _status(code: ErrorCode) -> HTTPStatus:
    return PROBLEMS[code].status


def _header(name: str, *, required: bool) -> dict[str, Any]:
    description, schema = HEADERS[name]
    return {"description": description, "required": required, "schema": schema}
