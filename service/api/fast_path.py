"""Step 1: plain requests for a coupon are read and answered here, everything else goes on to the application.

What is plain is the application's answer without the cost of finding out what else it might have been: the same
reading, the same use case, the same problems. Its route stands in the application too, for requests that are not plain.
"""

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api import errors
from service.api.request_parsing import JSON, parse_id, read_json
from service.api.routes.issuances import accept_issuance
from service.api.schemas.issuances import NewIssuance
from service.resources import ApiResources

_PATH = re.compile(r"/coupons/([1-9][0-9]*)/issuances", re.ASCII)
_PLAIN, _TYPE = JSON.encode(), (b"content-type", JSON.encode())


class IssuanceFastPath:
    """The ASGI application in front of FastAPI's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        coupon_id = _asked(scope) if scope["type"] == "http" and scope["method"] == "POST" else None
        if coupon_id is None:
            await self._app(scope, receive, send)
            return
        try:
            location, body = await _take_place(scope["state"]["api"], coupon_id, receive)
        except Exception as error:  # noqa: BLE001  # as the application's own handlers do
            await errors.error_response(error)(scope, receive, send)
            return
        await send(_start(location, body))
        await send({"type": "http.response.body", "body": body})


def _asked(scope: Scope) -> str | None:
    """The coupon for which a plain request asks: sent as JSON in the usual spelling, and no fault asked for."""
    match = _PATH.fullmatch(scope["path"])
    kind = None
    for name, value in scope["headers"] if match else ():
        if name == b"content-type":
            kind = kind or value
        elif name == b"fault":
            return None
    return match[1] if match and kind == _PLAIN else None


async def _take_place(api: ApiResources, coupon_id: str, receive: Receive) -> tuple[str, bytes]:
    number = parse_id(coupon_id)
    return await accept_issuance(api, number, await read_json(receive, NewIssuance))


def _start(location: str, body: bytes) -> Message:
    headers = [(b"location", location.encode()), (b"content-length", b"%d" % len(body)), _TYPE]
    return {"type": "http.response.start", "status": 202, "headers": headers}
