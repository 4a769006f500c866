"""Keeps the gate in step with the database: released seats, coupons sold out or changed, appends without an outcome."""

from sqlalchemy import Engine

from service import crash_points
from service.clock import jitter
from service.config import Settings
from service.crash_points import CrashPoint
from service.domain.errors import Unavailable
from service.domain.request_id import RequestIds
from service.domain.retry import backoff_seconds
from service.gate.gate_admin import GateAdmin
from service.gate.keys import END_OF_TIME_MS
from service.store import checkpoints, coupon_changes, coupons, outbox, requests
from service.store.engine import in_transaction
from service.store.outbox import OutboxKind
from service.usecases.key_register import KeyRegister
from service.usecases.lookup import is_past_watermark
from service.usecases.write_plan import releases_seat

#: offsets that the claimed outbox entries may cover
_MAX_OFFSETS_PER_CLAIM = 5_000
_UNACKNOWLEDGED_BATCH_SIZE = 10_000
_COUPONS_BATCH_SIZE = 500


def sync_decisions(engine: Engine, gate_admin: GateAdmin, lease_seconds: float) -> int:
    """Publish one claimed batch of decisions to the gate; return the number of outbox entries done.

    Raises Unavailable without Redis, after it has postponed the batch. If the process is killed between two lines,
    the batch is published again when the lease has expired; a second time changes nothing.
    """
    with engine.begin() as tx:
        batch = outbox.claim_batch(tx, OutboxKind.GATE, lease_seconds, _MAX_OFFSETS_PER_CLAIM)
        decisions = requests.decisions_of(tx, batch.entries) if batch else []
        decided_coupons = coupons.get_many(tx, {decision.coupon_id for decision in decisions})
    if batch is None:
        return 0
    crash_points.reach(CrashPoint.GATE_CLAIMED)
    released = [
        (decision.coupon_id, decision.user_id, decision.request_id)
        for decision in decisions
        if releases_seat(decision.state, decision.code)
    ]
    try:
        gate_admin.release(released, END_OF_TIME_MS)
        gate_admin.update_coupons(coupon for coupon in decided_coupons.values() if coupon.issued >= coupon.quantity)
    except Unavailable as error:
        pause = backoff_seconds(batch.entries[0].attempts, max_seconds=10, jitter=jitter())
        with engine.begin() as tx:
            outbox.postpone_batch(tx, batch, pause, str(error))
        raise
    crash_points.reach(CrashPoint.GATE_SYNCED)
    with engine.begin() as tx:
        outbox.delete_batch(tx, batch)
    return len(batch.entries)


def sync_coupon_changes(engine: Engine, gate_admin: GateAdmin) -> int:
    """Publish changed coupons to the gate; return how many. Raises Unavailable without Redis.

    If the process is killed before the coupons are marked as published, the next call publishes them again: the gate
    compares versions and ignores an older one.
    """
    with in_transaction(engine) as tx:
        changed = coupons.get_many(tx, coupon_changes.unpublished_coupon_ids(tx, _COUPONS_BATCH_SIZE)).values()
    gate_admin.update_coupons(changed)
    crash_points.reach(CrashPoint.CHANGE_PUBLISHED)
    with in_transaction(engine) as tx:
        coupon_changes.mark_published(tx, changed)
    return len(changed)


def release_expired_seats(
    settings: Settings, engine: Engine, ids: RequestIds, key_register: KeyRegister, gate_admin: GateAdmin, now_ms: int
) -> int:
    """Release the seats of requests that cannot be in the log any more; return how many.

    A request that has a row is resolved and keeps its seat. One without a row keeps it until the watermark has passed
    the last moment at which its record could have been appended. If the process is killed between two
    lines, the next call continues. Raises KeyMissing if an id may be signed with a key that is missing here.
    """
    attempted_at_ms = gate_admin.unacknowledged(now_ms - settings.produce_timeout_ms, _UNACKNOWLEDGED_BATCH_SIZE)
    decoded_ids = {request_id: decoded for request_id in attempted_at_ms if (decoded := ids.decode(request_id))}
    # an id whose key has been removed cannot be decoded; it must not stay at the head of the queue
    undecodable = attempted_at_ms.keys() - decoded_ids.keys()
    with in_transaction(engine) as tx:
        if undecodable:
            key_register.require_complete(tx, "no key verifies the request id of an unacknowledged request")
        # before the rows: a request that these checkpoints have passed has its row by now
        _, current = checkpoints.of_open_log(tx)
        prior = requests.prior_requests(tx, {(decoded.coupon_id, decoded.user_id) for decoded in decoded_ids.values()})
    decided = decoded_ids.keys() & {request_id for of_user in prior.values() for request_id in of_user.request_ids}
    gate_admin.resolve_unacknowledged(sorted(decided | undecodable))
    released = 0
    for request_id in decoded_ids.keys() - decided:
        decoded, last_attempt_ms = decoded_ids[request_id], attempted_at_ms[request_id]
        if is_past_watermark(last_attempt_ms, decoded.coupon_id, current, settings):
            crash_points.reach(CrashPoint.SEATS_EXPIRED)
            released += gate_admin.release([(decoded.coupon_id, decoded.user_id, request_id)], last_attempt_ms)
            crash_points.reach(CrashPoint.SEATS_RELEASED)
    return released
