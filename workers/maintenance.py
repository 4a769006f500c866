"""What keeps the rest honest: beat's sweep for lost hints, the gate's upkeep."""

from functools import partial

from service.clock import now_ms
from service.usecases import tend
from workers import steps
from workers import sweep as lost
from workers.celery import app
from workers.names import Task
from workers.rooms import LEASE_SECONDS, rooms

#: work that nobody took up by then has lost its hint
_GRACE_SECONDS = 2.0


@app.task(name=Task.SWEEP.value)
def sweep() -> None:
    """Sends the hints again of rows that wait too long."""
    common = rooms().common
    lost.sweep(app, common, _GRACE_SECONDS)
    common.upkeep.record_sweep()


@app.task(name=Task.TELL_GATE.value)
def tell_gate() -> None:
    """Gives seats back to the gate and lets it know which coupons are gone."""
    common = rooms().common
    steps.take(Task.TELL_GATE, partial(tend.tell_gate, common.engine, common.upkeep, LEASE_SECONDS))


@app.task(name=Task.TELL_CHANGES.value)
def tell_changes() -> None:
    """Tells the gate which coupons operators changed while it was away."""
    common = rooms().common
    tend.tell_changes(common.engine, common.upkeep)


@app.task(name=Task.SETTLE_APPENDS.value)
def settle_appends() -> None:
    """Frees the seats of requests that certainly never reached the log."""
    opened, common = rooms(), rooms().common
    tend.settle_appends(common.settings, common.engine, common.log, opened.ids, common.upkeep, now_ms())
