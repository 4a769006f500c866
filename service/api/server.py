"""Serves the API on its port: in this process, or in several beneath it that share the port."""

import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from service import resources, startup
from service.api import app
from service.api.fast_path import IssuanceFastPath
from service.config import Settings
from service.domain.errors import CouponsError
from service.metrics import MULTIPROCESS_DIRECTORY_VARIABLE


def run_single(settings: Settings) -> None:
    """Serves until told to stop; raises Misconfigured."""
    uvicorn.run(_application(settings), **_options(settings))


def run_workers(settings: Settings) -> None:
    """Serves with as many processes as the settings say until told to stop; one that dies is started anew.

    Each has clients of its own and is ready or not by itself. Raises Misconfigured.
    """
    resources.wait_for_resources(settings, "api").close()  # a fault is told once, before any process begins
    with tempfile.TemporaryDirectory(prefix="coupons-api-") as numbers:
        os.environ[MULTIPROCESS_DIRECTORY_VARIABLE] = numbers
        name = f"{create_worker_app.__module__}:{create_worker_app.__name__}"
        uvicorn.run(name, factory=True, workers=settings.api_processes, **_options(settings))


def create_worker_app() -> IssuanceFastPath:
    """The application of one of several processes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        return _application(startup.configure_process())
    except CouponsError as error:
        print(f"cannot start: {error}", file=sys.stderr)  # noqa: T201  # for whoever starts it
        sys.exit(STARTUP_FAILURE)  # at which the parent ends, too


def _end_with(parent: Any) -> None:
    """A process whose parent was killed would hold the port against the parent's successor."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _application(settings: Settings) -> IssuanceFastPath:
    built = IssuanceFastPath(app.create_app(resources.wait_for_resources(settings, "api", connections=10)))
    tune_garbage_collector()
    return built


def tune_garbage_collector() -> None:
    """Requests live for a second and leave no cycles: looking for some among thousands costs a tenth of their time."""
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.api_host,
        "port": settings.api_port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": 15,
        "timeout_worker_healthcheck": 30,  # it begins with the process, which answers once it has imported everything
    }
