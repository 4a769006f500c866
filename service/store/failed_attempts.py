"""Queries on failed attempts: when and why attempts to issue a request failed. No decision reads them."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from service.domain.failures import Failure
from service.domain.request import LogPosition, ReasonCode
from service.store.arrays import LOG_POSITION_ARRAYS, log_position_arrays


class FailedAttempt(NamedTuple):
    """An attempt that failed."""

    log_position: LogPosition
    #: which attempt of the request it was, from 1
    number: int
    failure: Failure
    #: why the request is dead from then on; None: it is retried
    dead_code: ReasonCode | None = None


# A history never fails a decision, so a number that exists already is left as it is.
_INSERT = text(
    'INSERT INTO failed_attempts (log_id, partition, "offset", attempt, failed_at, error_type, error_message,'
    " dead_code) SELECT l, p, o, number, :at, kind, message, dead_code"
    f" FROM unnest({LOG_POSITION_ARRAYS}, CAST(:numbers AS int[]), CAST(:kinds AS text[]), CAST(:messages AS text[]),"
    "  CAST(:dead_codes AS text[])) AS failed(l, p, o, number, kind, message, dead_code)"
    " ON CONFLICT DO NOTHING"
)


def insert(tx: Connection, log_id: int, failed: Sequence[FailedAttempt], failed_at: datetime) -> None:
    """Store failed attempts; `failed_at` is the `decided_at` of their transaction."""
    if not failed:
        return
    tx.execute(
        _INSERT,
        {
            **log_position_arrays(log_id, [one.log_position for one in failed]),
            "at": failed_at,
            "numbers": [one.number for one in failed],
            "kinds": [one.failure.error_type for one in failed],
            "messages": [one.failure.message for one in failed],
            "dead_codes": [one.dead_code and one.dead_code.value for one in failed],
        },
    )
