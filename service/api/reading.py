"""Reads what a caller sent, strictly: ids in one spelling, bodies of one type and a bounded size."""

import re
from enum import StrEnum
from typing import Annotated, TypeVar, cast

import msgspec
from fastapi import Depends, HTTPException, Request
from starlette.types import Receive

from service.api.bodies.form import Body, decode
from service.api.patience import Patience
from service.api.problems import Invalid
from service.bootstrap import Api
from service.domain.coupon import MAX_ID

JSON = "application/json"
BODY_BYTES_MOST = 16_384
PAGE_MOST = 500
BODY_SECONDS_MOST = 5.0
_PATIENCE = Patience(BODY_SECONDS_MOST)
_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)


def parse_id(text: str) -> int:
    """An id in its one decimal spelling; raises Invalid."""
    if not _ID.fullmatch(text) or int(text) > MAX_ID:
        raise Invalid("the id must be a decimal number from 1 to 2⁶³−1, without sign or leading zero")
    return int(text)


def parse_limit(text: str) -> int:
    """The size of a page; raises Invalid."""
    size = parse_id(text)
    if size > PAGE_MOST:
        raise Invalid(f"limit may be {PAGE_MOST} at most")
    return size


Choice = TypeVar("Choice", bound=StrEnum)


def parse_choice(name: str, text: str, kind: type[Choice]) -> Choice:
    """One of a closed vocabulary; raises Invalid naming it."""
    try:
        return kind(text)
    except ValueError:
        raise Invalid(f"{name} must be one of {', '.join(kind)}") from None


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
        raise Invalid(str(error)) from None


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
        if len(body) > BODY_BYTES_MOST:
            raise HTTPException(413, f"The body may have {BODY_BYTES_MOST} bytes.", {"Connection": "close"})
        more = message.get("more_body", False)
    return bytes(body)


def parts(request: Request) -> Api:
    """What the application was built with."""
    return cast(Api, request.state.api)


Parts = Annotated[Api, Depends(parts)]
