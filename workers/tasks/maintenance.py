"""What keeps the rest honest: beat's sweep for lost hints, the gate's upkeep."""

from functools import partial

from service.clock import now_ms
from service.usecases import gate_sync
from workers import batching
from workers import sweep as lost
from workers.celery import app
from workers.queues import Task
from workers.resources import LEASE_SECONDS, worker_resources

#: work that nobody took up by then has lost its hint
_GRACE_SECONDS = 2.0


@app.task(name=Task.SWEEP.value)
def sweep() -> None:
    """Sends the hints again of rows that wait too long."""
    common = worker_resources().shared
    lost.sweep(app, common, _GRACE_SECONDS)
    common.gate_admin.record_sweep()


@app.task(name=Task.SYNC_GATE.value)
def sync_gate() -> None:
    """Gives seats back to the gate and lets it know which coupons are gone."""
    common = worker_resources().shared
    batching.run_batches(
        Task.SYNC_GATE, partial(gate_sync.sync_decisions, common.engine, common.gate_admin, LEASE_SECONDS)
    )


@app.task(name=Task.SYNC_CHANGES.value)
def sync_changes() -> None:
    """Tells the gate which coupons operators changed while it was away."""
    common = worker_resources().shared
    gate_sync.sync_coupon_changes(common.engine, common.gate_admin)


@app.task(name=Task.RELEASE_EXPIRED.value)
def release_expired() -> None:
    """Frees the seats of requests that certainly never reached the log."""
    opened, common = worker_resources(), worker_resources().shared
    gate_sync.release_expired_seats(
        common.settings, common.engine, common.log_id, opened.ids, common.gate_admin, now_ms()
    )
