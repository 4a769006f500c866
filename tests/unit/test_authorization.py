"""What the middleware does with connections that are no HTTP requests."""

import asyncio
from typing import Any

import pytest

from service.api.authorization import AuthorizationMiddleware, _head_only


def test_only_http_and_the_lifespan_reach_the_application() -> None:
    """A WebSocket has no entry in the table, so nobody is authorized to open one."""
    reached: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        del receive, send
        reached.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        """Stand for both channels, which are not used."""

    middleware = AuthorizationMiddleware(application, public_docs=False)
    with pytest.raises(NotImplementedError):
        asyncio.run(middleware({"type": "websocket", "path": "/coupons"}, nothing, nothing))
    asyncio.run(middleware({"type": "lifespan"}, nothing, nothing))

    assert reached == ["lifespan"]


def test_the_response_to_head_is_complete_with_its_head() -> None:
    """An application that sends a long body, or one without an end, sends it to nobody."""
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def respond(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    asyncio.run(respond(_head_only(send)))

    assert sent == ["http.response.start", "http.response.body"]
