"""Step 8: tells the receiver of decisions, in batches, each under an id that stays its own."""

from itertools import chain

from sqlalchemy import Connection, Engine

from service import crash_points
from service.clock import jitter
from service.crash_points import CrashPoint
from service.domain.request import Decision
from service.domain.retry import backoff_seconds
from service.store import outbox, requests
from service.store.outbox import OutboxBatch, OutboxKind
from service.webhooks.sender import WebhookSender


def deliver_notices(engine: Engine, sender: WebhookSender, lease_seconds: float) -> int:
    """Delivers one claim of waiting notices, one POST; the number of hand-offs done, 0 when none is to be done now.

    Raises Unavailable when the receiver did not take them: they are due again later, under the same ids. Killed
    after a POST and before its row is gone, the same POST is made again; the receiver knows it by its webhook-id.
    """
    if sender.circuit_breaker.open_seconds:
        return 0
    with engine.begin() as tx:
        claim = outbox.claim_batch(tx, OutboxKind.NOTIFY, lease_seconds)
        decided = decisions_of(tx, claim) if claim else []
    if claim is None:
        return 0
    crash_points.reach(CrashPoint.NOTICES_CLAIMED)
    try:
        if decided:
            sender.send(str(claim.delivery_id), decided)
    except Exception:
        with engine.begin() as tx:
            outbox.postpone_batch(tx, claim, backoff_seconds(claim.entries[0].attempts, jitter=jitter()))
        raise
    crash_points.reach(CrashPoint.NOTICES_POSTED)
    with engine.begin() as tx:
        outbox.delete_batch(tx, claim)
    return len(claim.entries)


def decisions_of(tx: Connection, batch: OutboxBatch) -> list[Decision]:
    """The decisions that a claim's hand-offs speak of, in their order."""
    found = (
        requests.decisions_in_range(tx, handoff.log_id, *handoff.range, handoff.decided_at) for handoff in batch.entries
    )
    return list(chain.from_iterable(found))
