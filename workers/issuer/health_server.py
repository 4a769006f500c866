"""The issuer's HTTP port: liveness, readiness with its reasons, metrics."""

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn import Config, Server

from service.background_thread import BackgroundThread
from service.config.network import LOOPBACK_NAMES
from service.domain.caller import Permission
from service.domain.errors import Forbidden, Unauthenticated, Unavailable
from service.metrics import ALERT_ACTIVE, ISSUER_ITERATION_AGE_SECONDS, ISSUER_READY, Exporter, Values
from service.scrape import render
from service.server.guarded_protocol import GuardedProtocol
from service.usecases.alerts import Alert
from service.usecases.authenticate import Authenticator
from workers.issuer.health import Health

_JSON = "application/json"
#: more than the time for which connections stay open at the end, so that all are closed before their event loop
_SHUTDOWN_SECONDS = 3
_TICK_SECONDS = 0.5


class _LoopbackProtocol(GuardedProtocol):
    """A connection while authentication is off: a page of another site must not read what everyone may."""

    host_names = LOOPBACK_NAMES


class HealthServer(BackgroundThread):
    """Serves the port in an event loop with a thread of its own, however many connections there are."""

    def __init__(
        self, health: Health, authenticator: Authenticator, read_values: Callable[[], Values], host: str, port: int
    ) -> None:
        """Bind the port: raises OSError when it is in use; 0 chooses a free one.

        `read_values` returns the values of the system for a scrape; it may block for a second.
        """
        super().__init__("health")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        config = Config(
            build_application(health, authenticator, read_values),
            http=GuardedProtocol if authenticator.enabled else _LoopbackProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        )
        self._server = _Server(config)

    @property
    def port(self) -> int:
        """The port that is bound."""
        port: int = self._listener.getsockname()[1]
        return port

    def run(self) -> None:
        """Serve until the thread is closed. Outside the main thread uvicorn handles no signals."""
        self._server.run([self._listener])

    def close(self) -> None:
        """End the connections and the thread."""
        self._server.should_exit = True
        super().close()


class _Server(Server):
    """uvicorn's server, which wakes less often, so that the thread that decides is interrupted less often."""

    async def main_loop(self) -> None:
        """Update the Date header of the responses, and end when `should_exit` is set."""
        while not await self.on_tick(0):  # noqa: ASYNC110  # `should_exit` is set by another thread
            await asyncio.sleep(_TICK_SECONDS)


def build_application(health: Health, authenticator: Authenticator, read_values: Callable[[], Values]) -> Starlette:
    """Return the application that answers /healthz, /readyz and /metrics; its handlers do not block.

    Operators see the reasons and the metrics; everyone sees whether the issuer is ready.
    """

    async def lives(_: Request) -> Response:
        return Response(b'{"status":"ok"}', media_type=_JSON)

    async def ready(request: Request) -> Response:
        reasons = health.reasons
        body: dict[str, object] = {"ready": not reasons}
        with suppress(HTTPException):
            _require_operator(authenticator, request)
            body |= {"faults": reasons, "alerts": health.alerts}
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        return Response(json.dumps(body), status, media_type=_JSON)

    async def metrics(request: Request) -> Response:
        _require_operator(authenticator, request)
        values = await run_in_threadpool(read_values)
        text = await run_in_threadpool(render, {**values, **_issuer_values(health)}, Exporter.ISSUER)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def refuse(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        body = json.dumps({"code": HTTPStatus(error.status_code).name.lower()}, separators=(",", ":"))
        return Response(body, error.status_code, error.headers, _JSON)

    routes = [Route("/healthz", lives), Route("/readyz", ready), Route("/metrics", metrics)]
    application = Starlette(routes=routes, exception_handlers={HTTPException: refuse})
    application.router.redirect_slashes = False
    return application


def _issuer_values(health: Health) -> Values:
    """Return the values of this issuer for a scrape."""
    active = health.alerts
    return {
        ISSUER_READY: {(): float(not health.reasons)},
        ISSUER_ITERATION_AGE_SECONDS: {(): health.iteration_age_seconds},
        ALERT_ACTIVE: {(alert,): float(alert in active) for alert in Alert},
    }


def _require_operator(authenticator: Authenticator, request: Request) -> None:
    """Raise HTTPException unless the request has the credentials of an operator."""
    try:
        authenticator.authenticate(request.headers.get("authorization")).require(Permission.READ_OPERATIONS)
    except Unauthenticated as error:
        raise HTTPException(HTTPStatus.UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"}) from error
    except Forbidden as error:
        raise HTTPException(HTTPStatus.FORBIDDEN) from error
    except Unavailable as error:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"}) from error
