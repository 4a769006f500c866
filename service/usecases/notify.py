"""Delivers notices, each with up to 500 decisions, to the webhook's receiver; a repeat has the same delivery id."""

from sqlalchemy import Engine

from service import crash_points
from service.clock import jitter
from service.crash_points import CrashPoint
from service.domain.retry import backoff_seconds
from service.log import escape_lines
from service.store import outbox, requests
from service.store.outbox import OutboxKind
from service.webhooks.sender import WebhookSender


def deliver_notices(engine: Engine, sender: WebhookSender, lease_seconds: float) -> int:
    """Claim one batch of outbox entries and deliver its decisions in one notice, which is one POST.

    Returns the number of entries delivered: 0 when none is due or the circuit breaker is open. Raises Unavailable when
    the receiver does not accept the POST; the entries are then due again later, under the same delivery id, and not
    before the time that the receiver asked for.

    The entries are moved to table `notices` after the POST. After a crash in between, the same POST is made again once
    the lease ends; the receiver recognises it by its webhook-id, which is the delivery id.
    """
    if sender.circuit_breaker.open_seconds:
        return 0
    with engine.begin() as tx:
        batch = outbox.claim_batch(tx, OutboxKind.NOTIFY, lease_seconds)
        decisions = requests.decisions_of(tx, batch.entries) if batch else []
    if batch is None:
        return 0
    crash_points.reach(CrashPoint.NOTICES_CLAIMED)
    try:
        status = sender.send(str(batch.delivery_id), decisions) if decisions else None
    except Exception as error:
        pause = max(
            backoff_seconds(batch.entries[0].attempts, jitter=jitter()),
            sender.circuit_breaker.open_seconds,  # for as long as the receiver asked: other processes do not ask sooner
        )
        with engine.begin() as tx:
            outbox.postpone_batch(tx, batch, pause, escape_lines(str(error)))
        raise
    crash_points.reach(CrashPoint.NOTICES_POSTED)
    with engine.begin() as tx:
        if status is None:
            outbox.delete_batch(tx, batch)
        else:
            outbox.keep_delivered(tx, batch, status)
    return len(batch.entries)
