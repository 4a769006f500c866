"""Queries on dead letters for operators: found by filters, locked for an action, with their audit trail."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, text

from service.domain.dead_letter import DeadLetter, DeadLetterAction, DeadLetterFilter, DeadLetterState
from service.domain.request import ReasonCode, Request, RequestState
from service.store.engine import to_milliseconds
from service.store.raw_records import raw_of_row

_MEANT = (
    "(CAST(:coupon_id AS bigint) IS NULL OR coupon_id = :coupon_id) AND (CAST(:code AS text) IS NULL OR code = :code)"
    " AND (CAST(:state AS text) IS NULL OR state = :state)"
)


def get(tx: Connection, dead_letter_id: int) -> DeadLetter | None:
    """The dead letter, or None."""
    row = tx.execute(text("SELECT * FROM dead_letters WHERE id = :id"), {"id": dead_letter_id}).one_or_none()
    return None if row is None else _letter(row)


def page(tx: Connection, filters: DeadLetterFilter, before_id: int | None, limit: int) -> list[DeadLetter]:
    """Up to `limit` of the dead letters meant with an id below `before_id`, the newest first (a keyset page)."""
    rows = tx.execute(
        text(
            f"SELECT * FROM dead_letters WHERE {_MEANT} AND id < coalesce(CAST(:before AS bigint), 9223372036854775807)"
            " ORDER BY id DESC LIMIT :limit"
        ),
        {**filters._asdict(), "before": before_id, "limit": limit},
    )
    return [_letter(row) for row in rows]


def new_ids_in_order(tx: Connection, filters: DeadLetterFilter, limit: int) -> list[int]:
    """Ids of dead letters with a place in the log that nobody acted on, in the order of their places.

    Those that nobody could read come last: they cannot stand in the way of the others for ever.
    """
    rows = tx.execute(
        text(
            f"SELECT id FROM dead_letters WHERE {_MEANT} AND log_id IS NOT NULL"
            ' ORDER BY request_id IS NULL, log_id, partition, "offset" LIMIT :limit'
        ),
        {**filters._asdict(), "state": DeadLetterState.NEW, "limit": limit},
    )
    return list(rows.scalars())


def lock(tx: Connection, ids: Sequence[int]) -> list[DeadLetter]:
    """Locks those of the dead letters that nobody acted on, in the order of their places."""
    rows = tx.execute(
        text("SELECT * FROM dead_letters WHERE id = ANY(:ids) AND state = 'new' ORDER BY id FOR UPDATE"),
        {"ids": list(ids)},
    )
    return sorted((_letter(row) for row in rows), key=lambda letter: (letter.log_id or 0, letter.raw.log_position))


#: what became of a dead letter's request: the letter's id, the request's state and code after a replay
ActionResult = tuple[int, RequestState | None, ReasonCode | None]


def record_actions(tx: Connection, action: DeadLetterState, via: str, came: Sequence[ActionResult]) -> None:
    """Marks locked dead letters and writes down who did what, and what came of each."""
    ids = [letter_id for letter_id, _, _ in came]
    tx.execute(
        text("UPDATE dead_letters SET state = :action WHERE id = ANY(:ids)"), {"ids": ids, "action": action.value}
    )
    tx.execute(
        text(
            "INSERT INTO dead_letter_actions (dead_letter_id, action, via, state, code)"
            " SELECT id, :action, :via, state, code"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:states AS text[]), CAST(:codes AS text[]))"
            "  AS came(id, state, code)"
        ),
        {
            "ids": ids,
            "action": action.value,
            "via": via,
            "states": [state and state.value for _, state, _ in came],
            "codes": [code and code.value for _, _, code in came],
        },
    )


def set_requests(tx: Connection, found: Mapping[int, Request]) -> None:
    """Notes whose records these are, by the letter's id, once they could be read after all."""
    for letter_id, request in found.items():
        tx.execute(
            text("UPDATE dead_letters SET coupon_id = :coupon, user_id = :uid, request_id = :name WHERE id = :id"),
            {"id": letter_id, "coupon": request.coupon_id, "uid": request.user_id, "name": request.request_id},
        )


def actions(tx: Connection, dead_letter_id: int) -> list[DeadLetterAction]:
    """What was done with a dead letter, oldest first."""
    rows = tx.execute(
        text("SELECT * FROM dead_letter_actions WHERE dead_letter_id = :id ORDER BY id"), {"id": dead_letter_id}
    )
    return [
        DeadLetterAction(
            DeadLetterState(row.action),
            row.via,
            row.state and RequestState(row.state),
            row.code and ReasonCode(row.code),
            to_milliseconds(row.acted_at),
        )
        for row in rows
    ]


def _letter(row: Any) -> DeadLetter:
    return DeadLetter(
        row.id,
        row.log_id,
        raw_of_row(row),
        row.coupon_id,
        row.user_id,
        row.request_id,
        ReasonCode(row.code),
        row.attempts,
        row.first_error,
        f"{row.error_type}: {row.error_message}",
        DeadLetterState(row.state),
        to_milliseconds(row.dead_at),
        row.forwarded_at and to_milliseconds(row.forwarded_at),
    )
