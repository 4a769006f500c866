"""What keeps the rest honest: beat's sweep for lost hints, the gate's upkeep."""

from service.bootstrap import now_ms
from service.store import dead_letters, handoffs, retries
from service.usecases import tend
from workers import hints
from workers.celery import app
from workers.names import Task
from workers.rooms import LEASE_SECONDS, rooms

#: work that nobody took up by then has lost its hint
_GRACE_SECONDS = 2.0
#: a hint that was sent again is given this long
_AGAIN_SECONDS = 5.0
_RETRIES_AT_ONCE = 2_000


@app.task(name=Task.SWEEP.value)
def sweep() -> None:
    """Sends the hints again of rows that wait too long."""
    common = rooms().common
    with common.engine.begin() as tx:
        overdue = retries.overdue(tx, common.log, _GRACE_SECONDS, _AGAIN_SECONDS, _RETRIES_AT_ONCE)
        kinds = handoffs.waiting(tx, _GRACE_SECONDS)
        dead = dead_letters.waiting(tx, _GRACE_SECONDS)
    for due in overdue:
        hints.retry(app, due.places, due.attempts, now=True)
    hints.work_waits(app, kinds, dead=dead)
    common.upkeep.swept()


@app.task(name=Task.TELL_GATE.value)
def tell_gate() -> None:
    """Gives seats back to the gate and lets it know which coupons are gone."""
    common = rooms().common
    while tend.tell_gate(common.engine, common.upkeep, LEASE_SECONDS):
        pass


@app.task(name=Task.SETTLE_APPENDS.value)
def settle_appends() -> None:
    """Frees the seats of requests that certainly never reached the log."""
    opened, common = rooms(), rooms().common
    tend.settle_appends(common.settings, common.engine, common.log, opened.ids, common.upkeep, now_ms())
