"""One query for the numbers of the whole database that Prometheus shows."""

from collections.abc import Mapping
from enum import StrEnum

from sqlalchemy import Connection, text

#: the query is ended after this time: what is shown must not load the server
_TIMEOUT = text("SET LOCAL statement_timeout = '2s'")


class Statistic(StrEnum):
    """What the query counts or measures, each by a label; ages are seconds by the database's clock."""

    ISSUED = "issued"
    HELD = "held"
    STANDBY = "standby"
    #: by the number of attempts made
    RETRYING = "retrying"
    #: by kind of work that waits for Celery; a held request has waited since its last attempt
    WORK_ROWS = "work_rows"
    WORK_AGE = "work_age"
    #: by reason code
    NEW_DEAD_LETTERS = "new_dead_letters"
    RECENT_DEAD_LETTERS = "recent_dead_letters"
    #: by partition
    NEXT_OFFSET = "next_offset"
    UNDECIDED_AGE = "undecided_age"
    #: 1 or 0
    VERIFICATION_OK = "verification_ok"
    VERIFICATION_AGE = "verification_age"
    #: by the name that a process gives to its connections
    CONNECTIONS = "connections"


class Work(StrEnum):
    """The kinds of work that wait for Celery; those of the outbox have the names of OutboxKind."""

    RETRY = "retry"
    DEAD_LETTER = "dead_letter"
    NOTIFY = "notify"
    GATE = "gate"


def _age(since: str) -> str:
    """Return the expression for the seconds since the oldest of these times."""
    return f"extract(epoch FROM clock_timestamp() - min({since}))"


_TOTALS = (
    "SELECT name, '' AS label, value FROM (SELECT sum(issued) AS issued, sum(held) AS held, sum(standby) AS standby"
    " FROM coupons) AS totals, LATERAL (VALUES ('issued', issued), ('held', held), ('standby', standby))"
    " AS each(name, value)"
)
_RETRYING = (
    "SELECT 'retrying', CAST(attempts AS text), count(*) FROM retries"
    " WHERE next_attempt_at IS NOT NULL GROUP BY attempts"
)
#: so many held requests are looked at for the one that has waited longest, those first whose attempt was due first
_MAX_HELD = 2_000
#: The time at which a row is due says nothing of that: the sweep puts it off whenever it sends the message again.
_LAST_ATTEMPT = (
    "SELECT max(failed_at) AS at FROM failed_attempts WHERE failed_attempts.log_id = held.log_id"
    ' AND failed_attempts.partition = held.partition AND failed_attempts."offset" = held."offset"'
)
_HELD = (
    'SELECT log_id, partition, "offset" FROM retries WHERE next_attempt_at IS NOT NULL'
    f" ORDER BY next_attempt_at LIMIT {_MAX_HELD}"
)
_WORK = (
    "SELECT name, work, value FROM ("
    "SELECT 'retry' AS work, count(*) AS rows,"
    f" (SELECT {_age('last_attempt.at')} FROM ({_HELD}) AS held, LATERAL ({_LAST_ATTEMPT}) AS last_attempt) AS age"
    "  FROM retries WHERE next_attempt_at IS NOT NULL"
    f" UNION ALL SELECT 'dead_letter', count(*), {_age('dead_at')} FROM dead_letters WHERE forwarded_at IS NULL"
    f" UNION ALL SELECT kind, count(*), {_age('decided_at')} FROM outbox GROUP BY kind"
    ") AS waiting, LATERAL (VALUES ('work_rows', rows), ('work_age', age)) AS each(name, value)"
)
_DEAD_LETTERS = (
    "SELECT 'new_dead_letters', code, count(*) FROM dead_letters WHERE state = 'new' GROUP BY code"
    " UNION ALL SELECT 'recent_dead_letters', '', count(*) FROM dead_letters"
    "  WHERE dead_at > now() - interval '1 minute'"
)
_PROGRESS = (
    "SELECT name, CAST(partition AS text), value FROM offsets JOIN logs ON logs.id = log_id AND closed_at IS NULL,"
    " LATERAL (VALUES ('next_offset', next_offset), ('undecided_age', CASE WHEN watermark > 'epoch'"
    "  THEN greatest(0, extract(epoch FROM clock_timestamp() - watermark)) END)) AS each(name, value)"
)
_VERIFICATION = (
    "SELECT name, '', value FROM (SELECT ok, ended_at FROM verifications WHERE coupon_id IS NULL"
    "  ORDER BY id DESC LIMIT 1) AS latest,"
    " LATERAL (VALUES ('verification_ok', CAST(CAST(ok AS int) AS numeric)),"
    "  ('verification_age', extract(epoch FROM clock_timestamp() - ended_at))) AS each(name, value)"
)
_CONNECTIONS = (
    "SELECT 'connections', application_name, count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND usename = current_user GROUP BY application_name"
)
_PARTS = [_TOTALS, _RETRYING, _WORK, _DEAD_LETTERS, _PROGRESS, _VERIFICATION, _CONNECTIONS]
_EVERY = " UNION ALL ".join(_PARTS)
_QUERY = text(f"SELECT name, label, CAST(value AS float8) AS value FROM ({_EVERY}) AS found WHERE value IS NOT NULL")


def read(tx: Connection) -> Mapping[Statistic, Mapping[str, float]]:
    """Return the numbers by statistic and label, all of one snapshot; a label without rows is absent."""
    tx.execute(_TIMEOUT)
    found: dict[Statistic, dict[str, float]] = {statistic: {} for statistic in Statistic}
    for row in tx.execute(_QUERY):
        found[Statistic(row.name)][row.label] = row.value
    return found
