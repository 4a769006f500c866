"""Queries on dead letters for operators: filter, lock for an action, audit trail."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from service.domain.dead_letter import (
    DeadLetter,
    DeadLetterAction,
    DeadLetterFilter,
    DeadLetterState,
    DeadLetterSummary,
)
from service.domain.request import LogPosition, ReasonCode, Request, RequestState
from service.limits import MAX_ACTIONS_SHOWN, MAX_ID, MAX_LISTED_ERROR_LENGTH
from service.store.raw_records import raw_of_row
from service.timestamps import to_milliseconds

_MATCHES = (
    "(CAST(:coupon_id AS bigint) IS NULL OR coupon_id = :coupon_id) AND (CAST(:code AS text) IS NULL OR code = :code)"
    " AND (CAST(:state AS text) IS NULL OR state = :state)"
    " AND (CAST(:ids AS bigint[]) IS NULL OR id = ANY(:ids))"
)

_LAST_ERROR = "error_type || ': ' || error_message"
_WITH_RECORD = f"SELECT *, {_LAST_ERROR} AS last_error FROM dead_letters"
_PAGE = text(
    'SELECT id, log_id, partition, "offset", appended_at, coupon_id, user_id, request_id, code, attempts, state,'
    " dead_at, forwarded_at, left(first_error, :length) AS first_error,"
    f" left({_LAST_ERROR}, :length) AS last_error FROM dead_letters"
    f" WHERE {_MATCHES} AND id < coalesce(CAST(:before AS bigint), :max_id) ORDER BY id DESC LIMIT :limit"
)


def get(tx: Connection, dead_letter_id: int) -> DeadLetter | None:
    """Return the dead letter, or None."""
    row = tx.execute(text(f"{_WITH_RECORD} WHERE id = :id"), {"id": dead_letter_id}).one_or_none()
    return None if row is None else DeadLetter(_summary(row), raw_of_row(row))


def page(tx: Connection, filters: DeadLetterFilter, before_id: int | None, limit: int) -> list[DeadLetterSummary]:
    """Return up to `limit` matching dead letters with an id below `before_id`, newest first (keyset pagination).

    The bytes of their records are not read.
    """
    values = {"before": before_id, "max_id": MAX_ID, "limit": limit, "length": MAX_LISTED_ERROR_LENGTH}
    return [_summary(row) for row in tx.execute(_PAGE, {**filters._asdict(), **values})]


def new_ids_in_order(tx: Connection, filters: DeadLetterFilter, limit: int) -> list[tuple[int, int]]:
    """Return ids of new dead letters that have a log position, in log order, each with the bytes of its record.

    Those that could not be decoded come last, so that they never block the others.
    """
    rows = tx.execute(
        text(
            "SELECT id, coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0) + pg_column_size(headers)"
            f" FROM dead_letters WHERE {_MATCHES} AND log_id IS NOT NULL"
            ' ORDER BY request_id IS NULL, log_id, partition, "offset" LIMIT :limit'
        ),
        {**filters._asdict(), "state": DeadLetterState.NEW, "limit": limit},
    )
    return [(row[0], row[1]) for row in rows]


def lock(tx: Connection, ids: Sequence[int]) -> list[DeadLetter]:
    """Lock those of the dead letters that are new; return them in log order."""
    rows = tx.execute(
        text(f"{_WITH_RECORD} WHERE id = ANY(:ids) AND state = 'new' ORDER BY id FOR UPDATE"),
        {"ids": list(ids)},
    )
    locked = (DeadLetter(_summary(row), raw_of_row(row)) for row in rows)
    return sorted(locked, key=lambda one: (one.summary.log_id or 0, one.summary.log_position))


#: id of the dead letter; state and code of its request after a replay
ActionResult = tuple[int, RequestState | None, ReasonCode | None]


def record_actions(tx: Connection, action: DeadLetterState, acted_by: str, results: Sequence[ActionResult]) -> None:
    """Set the state of locked dead letters and append to the audit trail."""
    ids = [dead_letter_id for dead_letter_id, _, _ in results]
    tx.execute(
        text("UPDATE dead_letters SET state = :action WHERE id = ANY(:ids)"), {"ids": ids, "action": action.value}
    )
    tx.execute(
        text(
            "INSERT INTO dead_letter_actions (dead_letter_id, action, acted_by, state, code)"
            " SELECT id, :action, :acted_by, state, code"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:states AS text[]), CAST(:codes AS text[]))"
            "  AS came(id, state, code)"
        ),
        {
            "ids": ids,
            "action": action.value,
            "acted_by": acted_by,
            "states": [state and state.value for _, state, _ in results],
            "codes": [code and code.value for _, _, code in results],
        },
    )


def set_requests(tx: Connection, found: Mapping[int, Request]) -> None:
    """Store the requests of dead letters, by id, that were decoded later."""
    for dead_letter_id, request in found.items():
        tx.execute(
            text("UPDATE dead_letters SET coupon_id = :coupon, user_id = :uid, request_id = :name WHERE id = :id"),
            {"id": dead_letter_id, "coupon": request.coupon_id, "uid": request.user_id, "name": request.request_id},
        )


def actions(tx: Connection, dead_letter_id: int) -> list[DeadLetterAction]:
    """Return the latest actions on a dead letter, at most MAX_ACTIONS_SHOWN, oldest first."""
    latest = "SELECT * FROM dead_letter_actions WHERE dead_letter_id = :id ORDER BY id DESC LIMIT :limit"
    rows = tx.execute(
        text(f"SELECT * FROM ({latest}) AS latest ORDER BY id"), {"id": dead_letter_id, "limit": MAX_ACTIONS_SHOWN}
    )
    return [
        DeadLetterAction(
            DeadLetterState(row.action),
            row.acted_by,
            row.state and RequestState(row.state),
            row.code and ReasonCode(row.code),
            to_milliseconds(row.acted_at),
        )
        for row in rows
    ]


def _summary(row: Any) -> DeadLetterSummary:
    return DeadLetterSummary(
        row.id,
        row.log_id,
        LogPosition(row.partition, row.offset),
        to_milliseconds(row.appended_at),
        row.coupon_id,
        row.user_id,
        row.request_id,
        ReasonCode(row.code),
        row.attempts,
        row.first_error,
        row.last_error,
        DeadLetterState(row.state),
        to_milliseconds(row.dead_at),
        row.forwarded_at and to_milliseconds(row.forwarded_at),
    )
