"""Step 7: forwards dead letters to their topic."""

from functools import partial

from service.usecases import dead_letter_topic
from workers import batching
from workers.celery import app
from workers.queues import Task
from workers.resources import LEASE_SECONDS, worker_resources

_PRODUCE_SECONDS = 2.5


@app.task(name=Task.FORWARD_DEAD_LETTERS.value)
def forward() -> None:
    """Forwards all that waits; what the broker does not take in time waits for the sweep."""
    opened = worker_resources()
    some = partial(
        dead_letter_topic.forward_dead_letters, opened.shared.engine, opened.producer, LEASE_SECONDS, _PRODUCE_SECONDS
    )
    batching.run_batches(Task.FORWARD_DEAD_LETTERS, some, batch_timeout_seconds=_PRODUCE_SECONDS)
