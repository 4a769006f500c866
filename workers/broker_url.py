"""Checks the broker's URL with kombu's own parser, which knows fewer options than the Redis client."""

from kombu.connection import Connection

from service.domain.errors import Misconfigured


def check_broker_url(url: str) -> None:
    """Raise Misconfigured if kombu does not know an option of the URL, or refuses its value; nothing is connected.

    service/config.py has checked everything before the options, so no reason repeats a user name or a password.
    """
    try:
        Connection(url)  # type: ignore[no-untyped-call]
    except (KeyError, TypeError, ValueError) as error:
        raise Misconfigured([f"CELERY_BROKER_URL: kombu refuses an option: {error}"]) from None
