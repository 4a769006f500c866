"""Builds the application and uvicorn's options for each process that serves the API."""

import gc
import multiprocessing
import os
import signal
import threading
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE

from service import resources, startup, tracing
from service.api import app, cors
from service.api.plain_requests import CouponProtocol
from service.config import Settings


def create_worker_app() -> ASGIApp:
    """Build the application of one of several worker processes, which exits when its parent process exits."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def exit_with_parent() -> None:
            # A worker whose parent was killed would keep the port from the parent's successor.
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=exit_with_parent, daemon=True).start()
    with startup.exit_on_error(STARTUP_FAILURE):  # a status at which the parent exits as well
        return build_application(startup.configure_server())


def build_application(settings: Settings) -> ASGIApp:
    """Build the ASGI application as soon as PostgreSQL and Kafka answer; raise Misconfigured."""
    common = resources.wait_for_signing_resources(settings, "api", connections=10)
    tracing.configure(settings, "api")
    application = cors.allow_origins(app.create_app(common), settings.allowed_origins)
    tune_garbage_collector()
    return application


def tune_garbage_collector() -> None:
    """Collect garbage less often.

    Requests live for a second and leave no cycles, and a search for cycles among thousands of requests takes a tenth of
    their CPU time.
    """
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """Return uvicorn's options for one process or several."""
    return {
        "http": CouponProtocol,
        "ws": "none",
        "proxy_headers": False,  # no proxy is configured that the addresses could be believed of
        "host": settings.api_host,
        "port": settings.api_port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 15,
        "reset_contextvars": True,  # a pipelined request must not inherit the log fields of the one before
        "timeout_worker_healthcheck": 30,  # counted from the start of a worker, which answers after all its imports
    }
