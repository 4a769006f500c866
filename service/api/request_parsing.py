"""Parses path parameters, queries and bodies strictly: one spelling for ids, one type and a bounded size for bodies."""

import re
from enum import StrEnum
from typing import Annotated, TypeVar, cast

import msgspec
from fastapi import Depends, HTTPException, Request
from starlette.types import Receive

from service.api.schemas.base import Body, decode
from service.api.shared_timeout import SharedTimeout
from service.domain.errors import InvalidInput
from service.limits import BODY_TIMEOUT_SECONDS, MAX_BODY_BYTES, MAX_ID, MAX_PAGE_SIZE
from service.resources import ApiResources

JSON = "application/json"
_BODY_TIMEOUT = SharedTimeout(BODY_TIMEOUT_SECONDS)
_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_CLOSE = {"Connection": "close"}


def parse_id(text: str, name: str = "id") -> int:
    """Return the id that `text` spells in decimal; raise InvalidInput for every other spelling."""
    if not _ID.fullmatch(text) or int(text) > MAX_ID:
        raise InvalidInput(f"{name} must be a decimal number from 1 to 2⁶³−1, without sign or leading zero.")
    return int(text)


def parse_limit(text: str) -> int:
    """Return the size of a page; raise InvalidInput."""
    if not _ID.fullmatch(text) or int(text) > MAX_PAGE_SIZE:
        raise InvalidInput(f"limit must be a decimal number from 1 to {MAX_PAGE_SIZE}, without sign or leading zero.")
    return int(text)


Choice = TypeVar("Choice", bound=StrEnum)


def parse_choice(name: str, text: str, kind: type[Choice]) -> Choice:
    """Return the member of `kind` with this value; raise InvalidInput that lists the values."""
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{name} must be one of {', '.join(kind)}.") from None


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Read and decode a body that is sent as JSON; raise as read_json, and HTTPException 415 for other media types."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise HTTPException(415, "The body must be sent with Content-Type: application/json.")
    return await read_json(request.receive, kind)


async def read_json(receive: Receive, kind: type[Body]) -> Body:
    """Read and decode a JSON body; raise InvalidInput, or HTTPException 400, 408 or 413."""
    try:
        body = await _BODY_TIMEOUT.wait(_receive_body(receive))
    except TimeoutError:
        detail = f"The body must arrive within {BODY_TIMEOUT_SECONDS:g} seconds."
        raise HTTPException(408, detail, _CLOSE) from None
    try:
        return decode(body, kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidInput(str(error)) from None


async def _receive_body(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise HTTPException(400, "The connection was closed before the whole body arrived.", _CLOSE)
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"The body must not exceed {MAX_BODY_BYTES} bytes.", _CLOSE)
        more = message.get("more_body", False)
    return bytes(body)


def api_resources(request: Request) -> ApiResources:
    """Return the clients and use cases of this process."""
    return cast(ApiResources, request.state.api)


ApiDeps = Annotated[ApiResources, Depends(api_resources)]
