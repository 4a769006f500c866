"""Handles plain coupon requests without FastAPI and passes every other request to the application.

The response is the same as that of the FastAPI route, without the framework's overhead: both call `accept_issuance`.
"""

import re
from functools import partial

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.request_parsing import JSON, read_json
from service.api.routes.issuances import accept_issuance
from service.api.schemas.issuances import NewIssuance

_PATH = re.compile(r"/coupons/([1-9][0-9]*)/issuances", re.ASCII)
_PLAIN_CONTENT_TYPE = JSON.encode()


class IssuanceFastPath:
    """The ASGI application in front of FastAPI's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to one request.

        A request is plain if its path and content type are in the usual spelling and it asks for no injected fault.
        """
        match = _PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        content_type, has_fault = None, False
        for name, value in scope["headers"] if match else ():
            if name == b"content-type":
                content_type = content_type or value
            elif name == b"fault":
                has_fault = True
        if match is None or content_type != _PLAIN_CONTENT_TYPE or has_fault:
            await self._app(scope, receive, send)
            return
        status, headers, body = await accept_issuance(
            scope["state"]["api"], match[1], partial(read_json, receive, NewIssuance)
        )
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
