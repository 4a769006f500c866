"""Runs the API: `python -m service.api`."""

from service import startup
from service.api import server


def main() -> None:
    """Checks the settings, then serves until told to stop."""
    with startup.exit_on_error():
        settings = startup.configure_process()
        if settings.api_processes == 1:
            server.run_single(settings)
        else:
            server.run_workers(settings)


if __name__ == "__main__":
    main()
