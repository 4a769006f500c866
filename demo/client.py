"""The users: they press as fast as a bounded number of connections lets them, and note what they are told."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import NamedTuple

import aiohttp
import msgspec

from demo.history import Answer, Call, History, Outcome
from demo.sale import CONNECTIONS, Ask

ANSWER_SECONDS = 15.0


class _Problem(msgspec.Struct, frozen=True):
    code: str | None = None


class _Told(NamedTuple):
    status: int
    location: str | None
    body: bytes


async def send(api_url: str, stages: Iterable[Sequence[Ask]], coupon_ids: Sequence[int], history: History) -> None:
    """Sends all asks, stage by stage, in their order, as many at a time as there are connections."""
    async with _connected(api_url) as session:
        for asks in stages:
            await _stage(session, iter(asks), coupon_ids, history)


async def _stage(
    session: aiohttp.ClientSession, left: Iterator[Ask], coupon_ids: Sequence[int], history: History
) -> None:
    async def press() -> None:
        for ask in left:
            history.add(await _ask(session, ask, coupon_ids[ask.offer]))

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(press())


def _connected(api_url: str) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=CONNECTIONS)
    return aiohttp.ClientSession(api_url, connector=connector, timeout=aiohttp.ClientTimeout(ANSWER_SECONDS))


async def _ask(session: aiohttp.ClientSession, ask: Ask, coupon_id: int) -> Call:
    sent_at = time.time()
    try:
        answer = understood(*await _post(session, ask, coupon_id))
    except (aiohttp.ClientError, TimeoutError) as error:
        answer = Answer(None, Outcome.UNKNOWN, type(error).__name__, None)
    return Call("issue", ask.user_id, coupon_id, sent_at, time.time(), *answer)


async def _post(session: aiohttp.ClientSession, ask: Ask, coupon_id: int) -> _Told:
    headers = {"Fault": ask.fault} if ask.fault else {}
    url, body = f"/coupons/{coupon_id}/issuances", {"user_id": ask.user_id}
    async with session.post(url, json=body, headers=headers) as response:
        return _Told(response.status, response.headers.get("Location"), await response.read())


def understood(status: int, location: str | None, body: bytes) -> Answer:
    """An answer's meaning; both a receipt and a `duplicate` name the request in their Location."""
    request_id = location.rpartition("/")[2] if location else None
    if status == HTTPStatus.ACCEPTED:
        return Answer(status, Outcome.ACCEPTED, None, request_id)
    outcome = Outcome.REFUSED if status < HTTPStatus.INTERNAL_SERVER_ERROR else Outcome.UNKNOWN
    return Answer(status, outcome, _code(body), request_id)


def _code(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Problem).code
    except msgspec.DecodeError:
        return None
