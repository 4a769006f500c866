"""Which requests the database will not have issued: each is written alone and taken back, all in one round trip."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from sqlalchemy import Connection, text

from service.domain.decide import Outcome
from service.domain.failures import Failure, FailureClass, classify
from service.store.engine import savepoint, to_datetime

_FAILING = text("SELECT * FROM failing_requests(CAST(:tries AS jsonb))")


class ProbedWrite(NamedTuple):
    """A request that is to be issued."""

    log_id: int
    outcome: Outcome
    #: it has no row yet
    is_new: bool
    #: the statement that its fault on demand is, if it has one
    fault: str | None


def find_failing(tx: Connection, trials: Sequence[ProbedWrite], decided_at: datetime) -> dict[str, Failure]:
    """Which of them fail by themselves, by request id; nothing of the trial stays."""
    tries = [
        {"row": row, "is_new": trial.is_new, "also": trial.fault}
        for row, trial in zip(_rows(trials, decided_at), trials, strict=True)
    ]
    with savepoint(tx):
        found = tx.execute(_FAILING, {"tries": json.dumps(tries)}).all()
    failures = {trials[row.number].outcome.request.request_id: classify(_error(row)) for row in found}
    return {
        request_id: failure for request_id, failure in failures.items() if failure.failure_class is FailureClass.RECORD
    }


def _rows(trials: Sequence[ProbedWrite], decided_at: datetime) -> Iterator[dict[str, object]]:
    """Each as the first of its coupon, whose sequence is the next: the others are not there while it is tried."""
    first: dict[int, int | None] = {}
    for log, (request, state, _, sequence), *_ in trials:
        yield {
            "log_id": log,
            "partition": request.log_position.partition,
            "offset": request.log_position.offset,
            "coupon_id": request.coupon_id,
            "user_id": request.user_id,
            "request_id": request.request_id,
            "state": state,
            "sequence": first.setdefault(request.coupon_id, sequence),
            "attempts": 1,
            "requested_at": to_datetime(request.requested_at_ms).isoformat(),
            "decided_at": decided_at.isoformat(),
        }


def _error(row: Any) -> psycopg.Error:
    """As the driver would have raised it, also for a state that it has no class of its own for."""
    said = f"{row.message}\nDETAIL:  {row.detail}" if row.detail else row.message
    try:
        return psycopg.errors.lookup(row.code)(said)
    except KeyError:
        error = psycopg.errors.get_base_exception(row.code)(said)
        error.sqlstate = row.code
        return error
