"""What the middleware does with connections that are no HTTP requests."""

import asyncio
from typing import Any

import pytest

from service.api.authorization import AuthorizationMiddleware


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
