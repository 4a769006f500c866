"""Evicts from the gate the coupons that have ended, so that Redis does not keep every coupon's users for ever."""

from sqlalchemy import Engine

from service.config import Settings
from service.domain.coupon import Coupon
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
_log = get_logger(__name__)


def evict_ended_coupons(settings: Settings, engine: Engine, ids: RequestIds, gate_admin: GateAdmin) -> int:
    """Evict the coupons that ended GATE_KEEP_SECONDS ago or before, and that nothing is in flight for; return how many.

    A coupon that had already ended when the gate was filled for it stays ENDED_FILL_KEEP_SECONDS at most.
    Nothing is in flight: no request for the coupon is unacknowledged, undecided, held or on standby. An evicted coupon
    is cold. If it is requested or opened again, the gate is filled from the database: who has a request is a duplicate.
    If the process is killed in between, the next run continues. Raises Unavailable.
    """
    unacknowledged = gate_admin.unacknowledged(END_OF_TIME_MS, _MAX_UNACKNOWLEDGED)
    if len(unacknowledged) == _MAX_UNACKNOWLEDGED:
        return 0
    awaited = {claims.coupon_id for request_id in unacknowledged if (claims := ids.decode(request_id))}
    due = [ended for ended in gate_admin.note_ended(awaited) if _is_due(ended, settings)]
    if not due:
        return 0
    with in_transaction(engine) as tx:
        found = coupons.get_many(tx, [ended.coupon_id for ended in due])
        _, current = checkpoints.of_open_log(tx)
    evicted = sum(
        gate_admin.evict_ended(ended)
        for ended in due
        if not _has_open_requests(found.get(ended.coupon_id))
        and is_past_watermark(ended.ended_at_ms, ended.coupon_id, current, settings)
    )
    if evicted:
        _log.info(LogEvent.GATE_EVICTED, coupons=evicted)
    return evicted


def _is_due(ended: EndedCoupon, settings: Settings) -> bool:
    keep_seconds = settings.gate_keep_seconds
    if ended.filled_ended:
        keep_seconds = min(keep_seconds, ENDED_FILL_KEEP_SECONDS)
    return ended.now_ms - ended.ended_at_ms >= keep_seconds * 1000


def _has_open_requests(coupon: Coupon | None) -> bool:
    return coupon is not None and bool(coupon.held or coupon.standby)
