"""The FastAPI application: routes, error handlers and the lifetime of the clients."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from typing import TypedDict, cast

from fastapi import Depends, FastAPI
from fastapi.telemetry import TelemetryConfig

from service import tracing
from service.api import errors, openapi
from service.api.authorization import AuthorizationMiddleware
from service.api.caching import CacheControlMiddleware
from service.api.request_parsing import refuse_repeated_parameters
from service.api.routes import (
    coupons,
    dashboard,
    dead_letters,
    documentation,
    health,
    issuances,
    problems,
    reports,
    tickets,
    users,
    wait_page,
)
from service.api_resources import ApiResources, open_api_resources
from service.resources import Resources


class State(TypedDict):
    """The contents of `request.state`."""

    api: ApiResources


def create_app(common: Resources) -> FastAPI:
    """Build the application; its clients are opened and closed by its lifespan."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        async with open_api_resources(common) as api:
            yield {"api": api}

    app = FastAPI(
        title="Coupons, first come, first served",
        version=metadata.version("coupons"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        swagger_ui_oauth2_redirect_url=None,
        dependencies=[Depends(refuse_repeated_parameters)],
        telemetry=cast(TelemetryConfig, tracing.fastapi_options()),
    )
    errors.install_error_handlers(app)
    for routes in (
        coupons, issuances, users, reports, tickets, dead_letters, health, problems, wait_page, dashboard,
        documentation,
    ):  # fmt: skip
        app.include_router(routes.router)
    openapi.describe(app)
    app.add_middleware(AuthorizationMiddleware, public_docs=common.settings.public_docs)
    app.add_middleware(CacheControlMiddleware)
    return app
