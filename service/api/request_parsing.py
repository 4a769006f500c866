"""Reads what a caller sent, strictly: ids in one spelling, bodies of one type and a bounded size."""

import re
from enum import StrEnum
from typing import Annotated, TypeVar, cast

import msgspec
from fastapi import Depends, HTTPException, Request
from starlette.types import Receive

from service.api.errors import InvalidRequest
from service.api.schemas.base import Body, decode
from service.api.shared_timeout import SharedTimeout
from service.domain.coupon import MAX_ID
from service.resources import ApiResources

JSON = "application/json"
MAX_BODY_BYTES = 16_384
MAX_PAGE_SIZE = 500
BODY_TIMEOUT_SECONDS = 5.0
_PATIENCE = SharedTimeout(BODY_TIMEOUT_SECONDS)
_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


def parse_id(text: str) -> int:
    """An id in its one decimal spelling; raises Invalid."""
    if not _ID.fullmatch(text) or int(text) > MAX_ID:
        raise InvalidRequest("the id must be a decimal number from 1 to 2⁶³−1, without sign or leading zero")
    return int(text)


def parse_limit(text: str) -> int:
    """The size of a page; raises Invalid."""
    size = parse_id(text)
    if size > MAX_PAGE_SIZE:
        raise InvalidRequest(f"limit may be {MAX_PAGE_SIZE} at most")
    return size


Choice = TypeVar("Choice", bound=StrEnum)


def parse_choice(name: str, text: str, kind: type[Choice]) -> Choice:
    """One of a closed vocabulary; raises Invalid naming it."""
    try:
        return kind(text)
    except ValueError:
        raise InvalidRequest(f"{name} must be one of {', '.join(kind)}") from None


async def read_body(request: Request, kind: type[Body]) -> Body:
    """The body, once its type, size, form and values are right; raises HTTPException 413 or 415, or Invalid."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise HTTPException(415, "The body must be sent as application/json.")
    return await read_json(request.receive, kind)


async def read_json(receive: Receive, kind: type[Body]) -> Body:
    """The same for a body that is known to be sent as JSON."""
    try:
        return decode(await _bounded(receive), kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(str(error)) from None


async def _bounded(receive: Receive) -> bytes:
    """The body's bytes, which have to come within a few seconds; a caller who has gone gets no answer anyway."""
    try:
        return await _PATIENCE.wait(_whole(receive))
    except TimeoutError:
        raise HTTPException(408, "The body did not come in time.", {"Connection": "close"}) from None


async def _whole(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "The body was cut off.", {"Connection": "close"})
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"The body may have {MAX_BODY_BYTES} bytes.", {"Connection": "close"})
        more = message.get("more_body", False)
    return bytes(body)


def api_resources(request: Request) -> ApiResources:
    """What the application was built with."""
    return cast(ApiResources, request.state.api)


ApiDeps = Annotated[ApiResources, Depends(api_resources)]
