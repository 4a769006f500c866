"""Step 7: forwards dead letters to their topic."""

from functools import partial

from service.usecases import bury
from workers import steps
from workers.celery import app
from workers.names import Task
from workers.rooms import LEASE_SECONDS, rooms

_PRODUCE_SECONDS = 2.5


@app.task(name=Task.DEAD_LETTER.value)
def forward() -> None:
    """Forwards all that waits; what the broker does not take in time waits for the sweep."""
    opened = rooms()
    some = partial(bury.forward, opened.common.engine, opened.producer, LEASE_SECONDS, _PRODUCE_SECONDS)
    steps.take(Task.DEAD_LETTER, some, step_seconds=_PRODUCE_SECONDS)
