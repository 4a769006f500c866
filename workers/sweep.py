"""Finds rows whose message was lost, and a gate that lost its state.

Beat's task runs it every second. The issuer runs it too, in case beat is down: see workers/issuer/monitor.py.
"""

from celery import Celery

from service.domain.errors import NotPermitted, Unavailable
from service.log import get_logger
from service.log_events import LogEvent
from service.resources import Resources
from service.store import coupon_changes, coupons, dead_letters, outbox, retries
from workers import messages
from workers.queues import MessageSource

_log = get_logger(__name__)
#: a row whose message was sent again is not sent again for this long
_RESEND_SECONDS = 5.0
_MAX_RETRIES = 2_000
_MAX_COUPONS = 100


def sweep(app: Celery, resources: Resources, grace_seconds: float) -> None:
    """Send again the messages of rows that have been due for longer than `grace_seconds`.

    Send the standby task of each coupon with decidable standby requests, without a grace period. Coupons in a gate that
    lost its state become cold, and keys of a wrong type are deleted.

    A crash at any line is repaired by the next sweep: it only sends messages, and the gate's reset can be repeated.
    """
    with resources.engine.begin() as tx:
        overdue = retries.claim_overdue(tx, grace_seconds, _RESEND_SECONDS, _MAX_RETRIES)
        coupon_ids = coupons.with_decidable_standby(tx, _MAX_COUPONS)
        kinds = outbox.overdue_kinds(tx, grace_seconds)
        changes = coupon_changes.has_overdue(tx, grace_seconds)
        dead = dead_letters.has_overdue(tx, grace_seconds)
    for due in overdue:
        messages.send_retry(app, due.log_id, due.log_positions, due.attempts, source=MessageSource.SWEEP)
    messages.send_decide_standby(app, coupon_ids, source=MessageSource.SWEEP)
    messages.send_outbox_tasks(app, None, kinds, dead=dead, source=MessageSource.SWEEP)
    if changes:
        messages.send_sync_changes(app, source=MessageSource.SWEEP)
    try:
        resources.gate_admin.delete_wrong_types()
        resources.gate_admin.reset_if_state_lost()
    except NotPermitted as error:
        _log.error(LogEvent.GATE_CHECK_REFUSED, reason=str(error))
    except Unavailable:
        pass  # the gate's Redis may be away while Celery's broker, another server, is not
