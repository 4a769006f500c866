"""Alerts: conditions in which the system goes on but an operator must act."""

from enum import StrEnum

from sqlalchemy import Connection, Engine

from service.config import Settings
from service.store import dead_letters
from service.store.engine import in_transaction

_MINUTE_SECONDS = 60


class Alert(StrEnum):
    """Every alert."""

    DEAD_LETTERS = "dead_letters"


def count_recent_dead_letters(tx: Connection) -> int:
    """Return the number of dead letters stored in the last minute."""
    return dead_letters.count_recent(tx, _MINUTE_SECONDS)


def active_alerts(settings: Settings, recent_dead_letters: int) -> dict[Alert, str]:
    """Return the active alerts with their reasons; `recent_dead_letters` are those of the last minute."""
    limit = settings.dead_letters_per_minute
    if recent_dead_letters <= limit:
        return {}
    return {
        Alert.DEAD_LETTERS: f"{recent_dead_letters} requests or records became dead in the last minute, more than"
        f" DEAD_LETTERS_PER_MINUTE ({limit}): run `coupons dead-letters list` to see why"
    }


def check_database(settings: Settings, engine: Engine) -> dict[Alert, str]:
    """Query the database for readiness and return the active alerts; raise Unavailable when it does not answer."""
    with in_transaction(engine) as tx:
        recent_dead_letters = count_recent_dead_letters(tx)
    return active_alerts(settings, recent_dead_letters)
