"""Queue dead_letter: forwards dead letters to their topic."""

from functools import partial

from service.usecases import dead_letter_topic
from workers import batching
from workers.celery import app
from workers.queues import Task
from workers.resources import LEASE_SECONDS, worker_resources

_PRODUCE_TIMEOUT_SECONDS = 2.5


@app.task(name=Task.FORWARD_DEAD_LETTERS.value)
def forward() -> str:
    """Forward all dead letters that wait; what the broker does not acknowledge in time waits for the sweep.

    A crash after the broker's acknowledgement and before it is stored leads to a second copy on the topic. The listener
    treats the copy like the first.
    """
    opened = worker_resources()
    forward_batch = partial(
        dead_letter_topic.forward_dead_letters,
        opened.shared.engine,
        opened.dead_letter_producer,
        LEASE_SECONDS,
        _PRODUCE_TIMEOUT_SECONDS,
    )
    count = batching.run_batches(
        Task.FORWARD_DEAD_LETTERS, forward_batch, batch_timeout_seconds=_PRODUCE_TIMEOUT_SECONDS
    )
    return f"dead letters forwarded: {count}"
