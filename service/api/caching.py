"""Decides which responses caches may store: those of the documentation, and what a route itself says. No other one."""

from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.authorization import DOCUMENTATION
from service.server.responses import NO_STORE

#: an hour, in the caller's own cache: it may be for operators only, and it changes with the version
_DOCUMENTATION = (b"cache-control", b"private, max-age=3600")
_DOCUMENTATION_PATHS = frozenset(path for _, path in DOCUMENTATION)


class CacheControlMiddleware:
    """Adds Cache-Control to the responses of routes. A response that has one keeps it; every problem has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        default = _DOCUMENTATION if get_route_path(scope) in _DOCUMENTATION_PATHS else NO_STORE

        async def send_with_default(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if not any(name == b"cache-control" for name, _ in headers):
                    message = {**message, "headers": [*headers, default]}
            await send(message)

        await self._app(scope, receive, send_with_default)
