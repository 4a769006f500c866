"""Finds what was lost, hints and the gate's memory; beat's task does so, and the issuer, should beat be away."""

from contextlib import suppress

from celery import Celery

from service.domain.errors import Unavailable
from service.resources import Resources
from service.store import coupon_changes, coupons, dead_letters, outbox, retries
from workers import messages
from workers.queues import MessageSource

#: a hint that was sent again is given this long
_AGAIN_SECONDS = 5.0
_RETRIES_AT_ONCE = 2_000
_COUPONS_AT_ONCE = 100


def sweep(app: Celery, resources: Resources, grace_seconds: float) -> None:
    """Sends the hints again of rows that nobody took up within the grace, and has a gate begin anew that must."""
    with resources.engine.begin() as tx:
        overdue = retries.claim_overdue(tx, grace_seconds, _AGAIN_SECONDS, _RETRIES_AT_ONCE)
        unsettled = coupons.with_decidable_standby(tx, _COUPONS_AT_ONCE)
        kinds = outbox.overdue_kinds(tx, grace_seconds)
        changes = coupon_changes.has_overdue(tx, grace_seconds)
        dead = dead_letters.has_overdue(tx, grace_seconds)
    for due in overdue:
        messages.send_retry(app, due.log_id, due.log_positions, due.attempts, source=MessageSource.SWEEP)
    messages.send_decide_standby(app, unsettled, source=MessageSource.SWEEP)
    messages.send_outbox_tasks(app, kinds, dead=dead, source=MessageSource.SWEEP)
    if changes:
        messages.send_sync_changes(app, source=MessageSource.SWEEP)
    with suppress(Unavailable):  # Celery's broker may be another
        resources.gate_admin.reset_if_state_lost()
