"""Keeps the gate true to the database: seats that come back, coupons that are gone, appends nobody heard of."""

from collections.abc import Mapping

from sqlalchemy import Engine

from service import crash_points
from service.clock import jitter
from service.config import Settings
from service.crash_points import CrashPoint
from service.domain.decide import PriorRequests
from service.domain.errors import Unavailable
from service.domain.request_id import RequestIdClaims, RequestIds
from service.domain.retry import backoff_seconds
from service.gate.gate_admin import GateAdmin
from service.gate.keys import ANY_TIME_MS
from service.store import checkpoints, coupon_changes, coupons, outbox, requests
from service.store.engine import in_transaction
from service.store.outbox import OutboxKind
from service.usecases.lookup import is_past_watermark
from service.usecases.notify import decisions_of
from service.usecases.write_plan import frees_seat

_RECORDS_AT_ONCE = 5_000
_UNSETTLED_AT_ONCE = 10_000
_COUPONS_AT_ONCE = 500


def sync_decisions(engine: Engine, gate_admin: GateAdmin, lease_seconds: float) -> int:
    """Does one claim of waiting work for the gate; the number of hand-offs done. Raises Unavailable without Redis.

    Killed between two lines, the same is told again after the lease; telling twice changes nothing.
    """
    with engine.begin() as tx:
        claim = outbox.claim_batch(tx, OutboxKind.GATE, lease_seconds, _RECORDS_AT_ONCE)
        decided = decisions_of(tx, claim) if claim else []
        touched = coupons.get_many(tx, {decision.coupon_id for decision in decided})
    if claim is None:
        return 0
    crash_points.reach(CrashPoint.GATE_CLAIMED)
    freed = [decision for decision in decided if frees_seat(decision.state, decision.code)]
    try:
        gate_admin.release([(one.coupon_id, one.user_id, one.request_id) for one in freed], ANY_TIME_MS)
        gate_admin.update_coupons(coupon for coupon in touched.values() if coupon.issued >= coupon.quantity)
    except Unavailable:
        with engine.begin() as tx:
            outbox.postpone_batch(
                tx, claim, backoff_seconds(claim.entries[0].attempts, max_seconds=10, jitter=jitter())
            )
        raise
    crash_points.reach(CrashPoint.GATE_SYNCED)
    with engine.begin() as tx:
        outbox.delete_batch(tx, claim)
    return len(claim.entries)


def sync_coupon_changes(engine: Engine, gate_admin: GateAdmin) -> int:
    """Tells the gate of coupons that operators changed; how many. Raises Unavailable without Redis.

    Killed before it is written down, the same is told again: the gate knows versions, and older news is dropped.
    """
    with in_transaction(engine) as tx:
        changed = coupons.get_many(tx, coupon_changes.unpublished_coupon_ids(tx, _COUPONS_AT_ONCE)).values()
    gate_admin.update_coupons(changed)
    crash_points.reach(CrashPoint.CHANGE_PUBLISHED)
    with in_transaction(engine) as tx:
        coupon_changes.mark_published(tx, changed)
    return len(changed)


def release_expired_seats(
    settings: Settings, engine: Engine, log_id: int, ids: RequestIds, gate_admin: GateAdmin, now_ms: int
) -> int:
    """Frees the seats of requests that certainly never reached the log; the number freed.

    A request that has a row is settled; one without keeps its seat until the issuer has passed its last chance.
    Killed between two lines, the next call finds what is left.
    """
    tried = gate_admin.unacknowledged(now_ms - settings.produce_timeout_ms, _UNSETTLED_AT_ONCE)
    claims = {request_id: claim for request_id in tried if (claim := ids.decode(request_id))}
    with in_transaction(engine) as tx:
        positions = checkpoints.current_checkpoints(
            tx, log_id
        )  # before the rows: what is passed by then has its row by now
        known = requests.prior_requests(tx, {claim[:2] for claim in claims.values()})
    decided = {request_id for request_id, claim in claims.items() if _has_row(known, request_id, claim)}
    gate_admin.resolve_unacknowledged(
        sorted(decided | (tried.keys() - claims.keys()))
    )  # an id whose key is gone can't be judged
    freed = 0
    for request_id in claims.keys() - decided:
        claim, tried_at = claims[request_id], tried[request_id]
        if is_past_watermark(tried_at, claim.coupon_id, positions, settings):
            crash_points.reach(CrashPoint.SEATS_EXPIRED)
            freed += gate_admin.release([(claim.coupon_id, claim.user_id, request_id)], tried_at)
            crash_points.reach(CrashPoint.SEATS_RELEASED)
    return freed


def _has_row(known: Mapping[tuple[int, int], PriorRequests], request_id: str, claims: RequestIdClaims) -> bool:
    mine = known.get((claims.coupon_id, claims.user_id))
    return mine is not None and request_id in mine.request_ids
