"""Load client for `POST /coupons/{id}/issuances`: sends requests and turns responses into client answers."""

import time
from http import HTTPStatus
from typing import NamedTuple, Self

import aiohttp
import msgspec

from service.domain.caller import Role
from service.verification.history import ClientAnswer
from testkit.credentials import Credentials
from testkit.history import TimedAnswer


class _Problem(msgspec.Struct, frozen=True):
    code: str | None = None


class IssuanceResponse(NamedTuple):
    """An HTTP response to an issuance request: the fields that determine the client answer."""

    status: int
    location: str | None
    body: bytes

    def answer(self, user_id: int, coupon_id: int) -> ClientAnswer:
        """Return the client answer for this response.

        `Location` names the request: the accepted one in a 202, the user's first one in a `duplicate`.
        A 5xx and a response outside the API's contract leave the outcome unknown.
        """
        code = self._code()
        request_id = self.location.rpartition("/")[2] if self.location else None
        if self.status == HTTPStatus.ACCEPTED and request_id:
            return ClientAnswer(user_id, coupon_id, "accepted", None, request_id)
        if self.status < HTTPStatus.INTERNAL_SERVER_ERROR and code:
            return ClientAnswer(user_id, coupon_id, "refused", code, request_id)
        return ClientAnswer(user_id, coupon_id, "unknown", code)

    def _code(self) -> str | None:
        try:
            return msgspec.json.decode(self.body, type=_Problem).code
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None


class IssuanceClient:
    """Sends issuance requests over at most `connections` kept connections, each with a timeout in seconds."""

    def __init__(self, api_url: str, connections: int, timeout_seconds: float, credentials: Credentials) -> None:
        self._session = aiohttp.ClientSession(
            api_url,
            headers=credentials.headers(Role.ON_BEHALF),
            connector=aiohttp.TCPConnector(limit=connections),
            timeout=aiohttp.ClientTimeout(timeout_seconds),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._session.close()

    async def request(self, user_id: int, coupon_id: int, fault: str | None = None) -> TimedAnswer:
        """Send one request and return its answer; `fault` is a failure to inject, as in "22012 1".

        Without a response the outcome is `unknown` and the code names the client's error.
        """
        headers = {"Fault": fault} if fault else {}
        url, body = f"/coupons/{coupon_id}/issuances", {"user_id": user_id}
        sent_at, status = time.time(), None
        try:
            async with self._session.post(url, json=body, headers=headers) as response:
                content = await response.read()
                status = response.status
                answer = IssuanceResponse(status, response.headers.get("Location"), content).answer(user_id, coupon_id)
        except (aiohttp.ClientError, TimeoutError) as error:
            answer = ClientAnswer(user_id, coupon_id, "unknown", type(error).__name__)
        return TimedAnswer(**msgspec.structs.asdict(answer), status=status, sent_at=sent_at, answered_at=time.time())
