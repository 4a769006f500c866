"""Runs the API: `python -m service.api`."""

from service import start
from service.api import serving


def main() -> None:
    """Checks the settings, then serves until told to stop."""
    with start.or_say_why():
        settings = start.configured()
        if settings.api_processes == 1:
            serving.alone(settings)
        else:
            serving.together(settings)


if __name__ == "__main__":
    main()
