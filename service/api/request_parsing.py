"""Parses path parameters, queries and bodies strictly: one spelling for ids, one type and a bounded size for bodies."""

import asyncio
import re
from collections import Counter
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Header, HTTPException, Request
from starlette.requests import ClientDisconnect

from service.api.schemas.base import Body, decode
from service.api_resources import ApiResources
from service.domain.coupon_name import normalize_name, part_fault
from service.domain.errors import InvalidInput
from service.limits import MAX_ID, MAX_NAME_LENGTH, MAX_PAGE_SIZE

JSON = "application/json"
_ID = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_STRONG_TAG = re.compile(r'(?<!W/)"([0-9]{1,18})"', re.ASCII)
#: printable ASCII characters in quotes, without quotes and backslashes in between; or plain, also without blanks and
#: commas, with which a proxy joins repeated headers
_KEY = '"[ !#-\\[\\]-~]{1,255}"|[!#-+\\--\\[\\]-~]{1,255}'
KEY_PATTERN = f"^({_KEY})$"
_key = re.compile(_KEY)
#: how often it is checked whether a client that waits for long work has closed its connection
_GONE_CHECK_SECONDS = 0.5
_CLOSE = {"Connection": "close"}


def parse_id(text: str, name: str, largest: int = MAX_ID) -> int:
    """Return the number, 1 to `largest`, that the parameter `name` spells in decimal; raise InvalidInput otherwise."""
    if not _ID.fullmatch(text) or int(text) > largest:
        raise InvalidInput(f"{name} must be a decimal number from 1 to {largest}, without sign or leading zero.")
    return int(text)


def parse_limit(text: str) -> int:
    """Return the size of a page; raise InvalidInput."""
    return parse_id(text, "limit", MAX_PAGE_SIZE)


def parse_if_match(header: str | None) -> frozenset[int] | None:
    """Return the versions of which one must be the present one, by an If-Match header; None: any version.

    A weak entity tag matches nothing (RFC 9110, section 13.1.1).
    """
    if header is None or header.strip() == "*":
        return None
    return frozenset(map(int, _STRONG_TAG.findall(header)))


async def _parse_idempotency_key(idempotency_key: Annotated[list[str] | None, Header()] = None) -> str | None:
    """Return the Idempotency-Key of a request without its quotes, or None; raise InvalidInput.

    draft-ietf-httpapi-idempotency-key-header: a quoted string. Many clients send it without quotes.
    """
    if not idempotency_key:
        return None
    if len(idempotency_key) > 1 or not _key.fullmatch(idempotency_key[0]):
        raise InvalidInput(
            "Idempotency-Key must be sent once and have 1 to 255 printable ASCII characters, without backslashes. In"
            " quotes it may contain blanks and commas."
        )
    return idempotency_key[0].strip('"')


IdempotencyKeyDep = Annotated[str | None, Depends(_parse_idempotency_key)]
"""The key by which a repeat of the request is recognized."""


async def refuse_repeated_parameters(request: Request) -> None:
    """Raise InvalidInput if the query has a parameter twice: programs differ in which of the values they take."""
    times_by_name = Counter(name for name, _ in request.query_params.multi_items())
    if repeated := next((name for name, times in times_by_name.items() if times > 1), None):
        raise InvalidInput(f"The query has the parameter `{repeated}` twice.")


Choice = TypeVar("Choice", bound=StrEnum)


def parse_choice(name: str, text: str, kind: type[Choice]) -> Choice:
    """Return the member of `kind` with this value; raise InvalidInput that lists the values."""
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{name} must be one of {', '.join(kind)}.") from None


def parse_flag(name: str, text: str) -> bool:
    """Return whether the value is true; raise InvalidInput for what is neither true nor false."""
    if text not in ("true", "false"):
        raise InvalidInput(f"{name} must be true or false.")
    return text == "true"


def parse_name_part(text: str) -> str:
    """Return the normalized part of a name that is searched for; raise InvalidInput for what no name contains."""
    part = normalize_name(text)
    if not 1 <= len(text) <= MAX_NAME_LENGTH:
        raise InvalidInput(f"name must have 1 to {MAX_NAME_LENGTH} characters.")
    if "\ufffd" in text:  # which takes the place of other bytes when a query is decoded
        raise InvalidInput("name must be UTF-8.")
    if fault := part_fault(part):
        raise InvalidInput(f"{fault}.")
    return part


def is_json(content_type: str) -> bool:
    """Return whether a Content-Type is JSON, with any parameters."""
    return content_type.partition(";")[0].strip().lower() == JSON


async def read_body(request: Request, kind: type[Body]) -> Body:
    """Read and decode a body that is sent as JSON; raise InvalidInput, or HTTPException 400 or 415.

    The server limits its size and the time in which it must arrive: service/server/guarded_protocol.py.
    """
    headers = request.headers
    if (
        not is_json(headers.get("content-type", ""))
        or headers.get("content-encoding", "identity").lower() != "identity"
    ):
        raise HTTPException(415)
    try:
        body = await request.body()
    except ClientDisconnect:
        raise HTTPException(400, "The connection was closed before the whole body arrived.", _CLOSE) from None
    return decode(body, kind)


async def wait_until_gone(request: Request) -> None:
    """Return when the client has closed the connection; only after the body was read.

    A client that is gone cannot be told from one that only stops sending, until something is sent to it. Both count.
    """
    while not request.state.has_stopped_sending():
        with suppress(TimeoutError):
            message = await asyncio.wait_for(request.receive(), _GONE_CHECK_SECONDS)
            if message["type"] == "http.disconnect":
                return


async def api_resources(request: Request) -> ApiResources:
    """Return the clients and use cases of this process. A coroutine: FastAPI calls functions in a thread."""
    return cast(ApiResources, request.state.api)


ApiDeps = Annotated[ApiResources, Depends(api_resources)]
