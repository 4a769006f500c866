"""What needs an operator's eyes though the system goes on: told by readiness, the log and a metric."""

from enum import StrEnum

from sqlalchemy import Connection

from service.config import Settings
from service.store import dead_letters

_MINUTE_SECONDS = 60


class Alert(StrEnum):
    """Every alert there is."""

    DEAD_LETTERS = "dead_letters"


def count_recent_deaths(tx: Connection) -> int:
    """How many requests and records died in the last minute."""
    return dead_letters.count_recent(tx, _MINUTE_SECONDS)


def active_alerts(settings: Settings, died: int) -> dict[Alert, str]:
    """The alerts for this many deaths in the last minute, each with its reason."""
    if died <= settings.dead_letters_per_minute:
        return {}
    why = f"{died} died in the last minute, more than {settings.dead_letters_per_minute}: coupons dead-letters list"
    return {Alert.DEAD_LETTERS: why}
