"""Runs the API: `python -m service.api`."""

import uvicorn

from service import bootstrap, start
from service.api import app
from service.api.door import Door


def main() -> None:
    """Checks the settings, then serves until told to stop."""
    with start.or_say_why():
        settings = start.configured()
        uvicorn.run(
            Door(app.create(bootstrap.wait_for_common(settings, "api", connections=10))),
            host=settings.api_host,
            port=settings.api_port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=15,
        )


if __name__ == "__main__":
    main()
