"""Alerts: conditions in which the system goes on but an operator must act."""

from collections import defaultdict
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, Engine

from service.config import Settings
from service.store import dead_letters
from service.store.engine import in_transaction
from service.usecases.key_register import KeyRegister
from service.usecases.log_watch import LogWatch
from service.usecases.undecided import LatePartition, UndecidedPartitions, UndecidedReport

_MINUTE_SECONDS = 60
#: more of them are not counted
_MAX_UNVERIFIED = 1_000


class Alert(StrEnum):
    """Every alert."""

    DEAD_LETTERS = "dead_letters"
    UNDECIDED = "undecided"
    TOPIC_REPLACED = "topic_replaced"
    TOPIC = "topic"
    KEY_MISSING = "key_missing"
    KEY_ENDED = "key_ended"
    UNVERIFIED_IDS = "unverified_ids"


class DeadLetterCounts(NamedTuple):
    """How many dead letters there are of which alerts speak."""

    #: stored in the last minute
    recent: int
    #: new ones whose request id no key verified, at most _MAX_UNVERIFIED
    unverified: int


def count_dead_letters(tx: Connection) -> DeadLetterCounts:
    """Count dead letters for active_alerts."""
    return DeadLetterCounts(
        dead_letters.count_recent(tx, _MINUTE_SECONDS), dead_letters.count_unverified(tx, _MAX_UNVERIFIED)
    )


def active_alerts(
    settings: Settings,
    counts: DeadLetterCounts,
    undecided: UndecidedReport,
    *,
    other_log: str | None = None,
    topic: str | None = None,
    missing_key: str | None = None,
    ended_key: str | None = None,
) -> dict[Alert, str]:
    """Return the active alerts with their reasons.

    `other_log`: why the topic is not the open log; `topic`: how the topic differs from the settings; `missing_key`:
    which key of request ids this process lacks; `ended_key`: which key is used although it has ended or will end.
    A backlog that gets shorter is no alert, however old its records are.
    """
    active = {Alert.TOPIC: topic} if topic else {}
    if other_log:
        active[Alert.TOPIC_REPLACED] = other_log
    if missing_key:
        active[Alert.KEY_MISSING] = missing_key
    if ended_key:
        active[Alert.KEY_ENDED] = ended_key
    if counts.unverified:
        number = f"at least {_MAX_UNVERIFIED}" if counts.unverified == _MAX_UNVERIFIED else str(counts.unverified)
        active[Alert.UNVERIFIED_IDS] = (
            f"{number} records carry a request id that no registered key signed, so they are dead letters: find out who"
            " writes to ISSUE_COUPON, then discard or replay them, see docs/recovery.md"
        )
    if counts.recent > (limit := settings.dead_letters_per_minute):
        active[Alert.DEAD_LETTERS] = (
            f"{counts.recent} requests or records became dead in the last minute, more than"
            f" DEAD_LETTERS_PER_MINUTE ({limit}): run `coupons dead-letters list` to see why"
        )
    old = [late for late in undecided.late if late.age_seconds > settings.undecided_alert_seconds]
    if late := [one for one in old if one.stalled or one.growing]:
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
    settings: Settings,
    engine: Engine,
    undecided: UndecidedPartitions,
    log_watch: LogWatch,
    key_register: KeyRegister,
) -> dict[Alert, str]:
    """Query the database for readiness and return the active alerts; raise Unavailable when it does not answer."""
    with in_transaction(engine) as tx:
        counts = count_dead_letters(tx)
        key_register.compare(tx)
    return active_alerts(
        settings,
        counts,
        undecided.check(),
        other_log=log_watch.seen_fault,
        topic=log_watch.alert,
        missing_key=key_register.fault,
        ended_key=key_register.alert,
    )
