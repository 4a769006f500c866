"""Alerts: conditions in which the system goes on but an operator must act."""

from collections import defaultdict
from enum import StrEnum

from sqlalchemy import Connection, Engine

from service.config import Settings
from service.store import dead_letters
from service.store.engine import in_transaction
from service.usecases.log_watch import LogWatch
from service.usecases.undecided import LatePartition, UndecidedPartitions, UndecidedReport

_MINUTE_SECONDS = 60


class Alert(StrEnum):
    """Every alert."""

    DEAD_LETTERS = "dead_letters"
    UNDECIDED = "undecided"
    TOPIC = "topic"


def count_recent_dead_letters(tx: Connection) -> int:
    """Return the number of dead letters stored in the last minute."""
    return dead_letters.count_recent(tx, _MINUTE_SECONDS)


def active_alerts(
    settings: Settings, recent_dead_letters: int, undecided: UndecidedReport, topic: str | None
) -> dict[Alert, str]:
    """Return the active alerts with their reasons.

    `recent_dead_letters` are those of the last minute; `topic`: how the topic differs from the settings.
    """
    active = {Alert.TOPIC: topic} if topic else {}
    if recent_dead_letters > (limit := settings.dead_letters_per_minute):
        active[Alert.DEAD_LETTERS] = (
            f"{recent_dead_letters} requests or records became dead in the last minute, more than"
            f" DEAD_LETTERS_PER_MINUTE ({limit}): run `coupons dead-letters list` to see why"
        )
    if late := [late for late in undecided.late if late.age_seconds > settings.undecided_alert_seconds]:
        by_reason: dict[str, list[LatePartition]] = defaultdict(list)
        for one in late:
            by_reason[one.reason].append(one)
        reasons = (
            f"partition{'s' * (len(same) > 1)} {', '.join(str(one.partition) for one in same)}"
            f" for {max(one.age_seconds for one in same):.0f} s, {reason}"
            for reason, same in by_reason.items()
        )
        active[Alert.UNDECIDED] = (
            f"records may be undecided for longer than UNDECIDED_ALERT_SECONDS ({settings.undecided_alert_seconds}),"
            f" see docs/recovery.md: {'; '.join(reasons)}"
        )
    return active


def check_database(
    settings: Settings, engine: Engine, undecided: UndecidedPartitions, log_watch: LogWatch
) -> dict[Alert, str]:
    """Query the database for readiness and return the active alerts; raise Unavailable when it does not answer."""
    with in_transaction(engine) as tx:
        recent_dead_letters = count_recent_dead_letters(tx)
    return active_alerts(settings, recent_dead_letters, undecided.check(), log_watch.alert)
