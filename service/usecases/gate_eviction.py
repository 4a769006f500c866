"""Evicts from the gate the coupons that have ended, so that Redis does not keep every coupon's users for ever."""

import random
import time
from collections.abc import Sequence

from sqlalchemy import Engine

from service.config import Settings
from service.domain.request_id import RequestIds
from service.gate.gate_admin import EndedCoupon, GateAdmin
from service.gate.keys import END_OF_TIME_MS
from service.limits import ENDED_FILL_KEEP_SECONDS
from service.log import get_logger
from service.log_events import LogEvent
from service.store import checkpoints, coupons
from service.store.engine import in_transaction
from service.usecases.lookup import is_past_watermark

#: with more unacknowledged requests than this a sale is going on: the next run looks again
_MAX_UNACKNOWLEDGED = 10_000
#: coupons whose ends are noted in one round trip, before those of them that are due are evicted
_BATCH_SIZE = 500
#: below Celery's limit for a task
_MAX_SECONDS = 4.0
_log = get_logger(__name__)


def evict_ended_coupons(settings: Settings, engine: Engine, ids: RequestIds, gate_admin: GateAdmin) -> int:
    """Evict the coupons that ended GATE_KEEP_SECONDS ago or before, and that nothing is in flight for; return how many.

    A coupon that had already ended when the gate was filled for it stays ENDED_FILL_KEEP_SECONDS at most. The coupons
    are taken in random order, some at a time, for _MAX_SECONDS: of very many coupons the next run takes others.

    Nothing is in flight: no request for the coupon is unacknowledged, undecided, held or on standby. An evicted coupon
    is cold. If it is requested or opened again, the gate is filled from the database: who has a request is a duplicate.
    If the process is killed in between, the next run continues. Raises Unavailable.
    """
    unacknowledged = gate_admin.unacknowledged(END_OF_TIME_MS, _MAX_UNACKNOWLEDGED)
    if len(unacknowledged) == _MAX_UNACKNOWLEDGED:
        return 0
    awaited = {claims.coupon_id for request_id in unacknowledged if (claims := ids.decode(request_id))}
    deadline = time.monotonic() + _MAX_SECONDS
    coupon_ids = list(gate_admin.coupon_ids())
    random.shuffle(coupon_ids)
    evicted = 0
    for first in range(0, len(coupon_ids), _BATCH_SIZE):
        ended = gate_admin.note_ended(coupon_ids[first : first + _BATCH_SIZE], awaited)
        evicted += _evict_due(settings, engine, gate_admin, [one for one in ended if _is_due(one, settings)])
        if time.monotonic() > deadline:
            break
    if evicted:
        _log.info(LogEvent.GATE_EVICTED, coupons=evicted)
    return evicted


def _evict_due(settings: Settings, engine: Engine, gate_admin: GateAdmin, due: Sequence[EndedCoupon]) -> int:
    """Evict those of the coupons that nothing is in flight for; return how many."""
    if not due:
        return 0
    with in_transaction(engine) as tx:
        found = coupons.get_many(tx, [ended.coupon_id for ended in due]).values()
        _, current = checkpoints.of_open_log(tx)
    with_open_requests = {coupon.id for coupon in found if coupon.held or coupon.standby}
    return sum(
        gate_admin.evict_ended(ended)
        for ended in due
        if ended.coupon_id not in with_open_requests
        and is_past_watermark(ended.ended_at_ms, ended.coupon_id, current, settings)
    )


def _is_due(ended: EndedCoupon, settings: Settings) -> bool:
    keep_seconds = settings.gate_keep_seconds
    if ended.filled_ended:
        keep_seconds = min(keep_seconds, ENDED_FILL_KEEP_SECONDS)
    return ended.now_ms - ended.ended_at_ms >= keep_seconds * 1000
