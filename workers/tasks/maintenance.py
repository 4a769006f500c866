"""Queue maintenance: the sweep for lost messages, and what keeps the gate up to date."""

from functools import partial

from service.clock import now_ms
from service.usecases import gate_eviction, gate_sync
from workers import batching
from workers import sweep as lost_messages
from workers.celery import app
from workers.queues import Task
from workers.resources import LEASE_SECONDS, worker_resources

#: a row that no task has claimed after this time has lost its message
_GRACE_SECONDS = 2.0


# Beat starts this every second, so its events are off. Flower does not show the sweep itself, only the tasks that it
# sends.
@app.task(name=Task.SWEEP.value, send_events=False)
def sweep() -> None:
    """Send the messages again of rows that have waited too long."""
    shared = worker_resources().shared
    lost_messages.sweep(app, shared, _GRACE_SECONDS)
    shared.gate_admin.record_sweep()


@app.task(name=Task.SYNC_GATE.value)
def sync_gate() -> str:
    """Release seats at the gate and mark sold-out coupons."""
    shared = worker_resources().shared
    count = batching.run_batches(
        Task.SYNC_GATE,
        partial(gate_sync.sync_decisions, shared.engine, shared.gate_admin, LEASE_SECONDS),
        gate_admin=shared.gate_admin,
    )
    return f"outbox entries applied: {count}"


@app.task(name=Task.SYNC_CHANGES.value)
def sync_changes() -> None:
    """Publish coupon changes that the gate has not received."""
    shared = worker_resources().shared
    gate_sync.sync_coupon_changes(shared.engine, shared.gate_admin)


# Beat starts this every five seconds; events are off for the same reason.
@app.task(name=Task.RELEASE_EXPIRED.value, send_events=False)
def release_expired() -> None:
    """Release the seats of requests that can no longer reach the log."""
    opened = worker_resources()
    shared = opened.shared
    gate_sync.release_expired_seats(
        shared.settings, shared.engine, opened.ids, shared.key_register, shared.gate_admin, now_ms()
    )


# Beat starts this every minute; events are off for the same reason.
@app.task(name=Task.EVICT_ENDED.value, send_events=False)
def evict_ended() -> None:
    """Evict from the gate the coupons that ended long ago."""
    opened = worker_resources()
    shared = opened.shared
    gate_eviction.evict_ended_coupons(shared.settings, shared.engine, opened.ids, shared.gate_admin)
