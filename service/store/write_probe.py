"""Finds the requests whose write fails, and makes writes fail on request.

The database writes each request alone and rolls it back, all in one round trip. For demos and tests it raises the
SQLSTATE that a request asks for.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection, text

from service.domain.decide import Outcome
from service.domain.failures import Failure, FailureClass, classify
from service.domain.record import InjectedFault
from service.store.engine import savepoint
from service.timestamps import to_datetime

_FAILING = text("SELECT * FROM failing_requests(CAST(:tries AS jsonb))")


class ProbedWrite(NamedTuple):
    """A request to be issued."""

    log_id: int
    outcome: Outcome
    #: it has no row yet
    is_new: bool
    #: the statement that raises its injected fault, if it has one
    fault: str | None


def find_failing(tx: Connection, writes: Sequence[ProbedWrite], decided_at: datetime) -> dict[str, Failure]:
    """Return the failures of class record, by request id. All its changes are rolled back."""
    #: of each coupon: each row has it, because rows are probed one at a time
    first_sequences: dict[int, int | None] = {}
    tries = []
    for log_id, (request, state, _, sequence), is_new, fault in writes:
        row = {
            "log_id": log_id,
            "partition": request.log_position.partition,
            "offset": request.log_position.offset,
            "coupon_id": request.coupon_id,
            "user_id": request.user_id,
            "request_id": request.request_id,
            "state": state,
            "sequence": first_sequences.setdefault(request.coupon_id, sequence),
            "attempts": 1,
            "requested_at": to_datetime(request.requested_at_ms).isoformat(),
            "decided_at": decided_at.isoformat(),
        }
        tries.append({"row": row, "is_new": is_new, "also": fault})
    with savepoint(tx):
        found = tx.execute(_FAILING, {"tries": json.dumps(tries)}).all()
    failures = {writes[row.number].outcome.request.request_id: classify(_driver_error(row)) for row in found}
    return {
        request_id: failure for request_id, failure in failures.items() if failure.failure_class is FailureClass.RECORD
    }


def _driver_error(row: Any) -> psycopg.Error:
    """Return the exception that the driver would raise, also for a SQLSTATE that it has no class for."""
    message = f"{row.message}\nDETAIL:  {row.detail}" if row.detail else row.message
    try:
        return psycopg.errors.lookup(row.code)(message)
    except KeyError:
        error = psycopg.errors.get_base_exception(row.code)(message)
        error.sqlstate = row.code
        return error


def raise_statement(injected_fault: InjectedFault | None, attempt: int) -> str | None:
    """Return the statement that raises the fault, or None if it does not apply to this attempt."""
    if not injected_fault or attempt > injected_fault.times:
        return None
    return f"DO $$ BEGIN RAISE EXCEPTION 'an injected fault' USING ERRCODE = '{injected_fault.sqlstate}'; END $$"


def raise_injected(tx: Connection, statements: Iterable[str | None]) -> None:
    """Execute the first of the statements, if there is one."""
    for raising in filter(None, statements):
        tx.execute(text(raising))
