"""Run the API: `python -m service.api`."""

import os
import tempfile

import uvicorn

from service import resources, startup
from service.api import server
from service.config import Settings
from service.metrics import MULTIPROCESS_DIRECTORY_VARIABLE


def main() -> None:
    """Check the settings, then serve until a signal ends the process."""
    with startup.exit_on_error():
        settings = startup.configure_server()
        if settings.api_processes == 1:
            uvicorn.run(server.build_application(settings), **server.uvicorn_options(settings))
        else:
            run_workers(settings)


def run_workers(settings: Settings) -> None:
    """Serve with API_PROCESSES worker processes that share the port; uvicorn replaces a worker that exits.

    Each worker has its own clients and reports its own readiness. Raises Misconfigured.
    """
    resources.wait_for_signing_resources(settings, "api").close()  # reports an error once, before any worker starts
    with tempfile.TemporaryDirectory(prefix="coupons-api-") as directory:
        os.environ[MULTIPROCESS_DIRECTORY_VARIABLE] = directory
        factory = f"{server.create_worker_app.__module__}:{server.create_worker_app.__name__}"
        uvicorn.run(factory, factory=True, workers=settings.api_processes, **server.uvicorn_options(settings))


if __name__ == "__main__":
    main()
