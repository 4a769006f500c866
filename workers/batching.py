"""Runs a task's work in batches within its time limit; the rest is left to another run."""

import time
from collections.abc import Callable
from contextlib import suppress

from service.domain.errors import Unavailable
from service.gate.gate_admin import GateAdmin
from workers import messages
from workers.celery import app
from workers.queues import Task

#: A task takes three seconds at most, well below the time limit at which Celery kills the process. The remaining fifth
#: of a second is for the transaction after the last batch.
_MAX_SECONDS = 2.8


def run_batches(
    task: Task,
    run_batch: Callable[[], int],
    *,
    batch_timeout_seconds: float = 0.0,
    idle_ratio: float = 0.0,
    gate_admin: GateAdmin | None = None,
) -> int:
    """Call `run_batch` until it returns 0; after three seconds stop and send the same task again.

    `batch_timeout_seconds`: the longest duration of a batch. After a batch that found work, another one starts only if
    at least this much of the three seconds is left. `gate_admin`: at the first 0 it removes the key that marks the task
    as queued, and `run_batch` is called again, because commits before the removal sent no message. `idle_ratio`:
    seconds of sleep for each second of CPU time that a batch used, so that the issuer has priority on the same machine.
    Returns the sum of what `run_batch` returned.
    """
    no_batch_after = time.monotonic() + _MAX_SECONDS - batch_timeout_seconds
    done = 0
    cpu_began = time.thread_time()
    while (count := run_batch()) or gate_admin:
        if not count and gate_admin:
            with suppress(Unavailable):  # the mark expires
                gate_admin.unmark_queued(task)
            gate_admin = None
            continue
        done += count
        pause = idle_ratio * (time.thread_time() - cpu_began)
        if time.monotonic() + pause > no_batch_after:
            messages.send_continuation(app, task)
            break
        time.sleep(pause)
        cpu_began = time.thread_time()
    return done
