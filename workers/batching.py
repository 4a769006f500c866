"""Work that comes in steps: a task takes as many as fit, the rest is another task's."""

import time
from collections.abc import Callable

from workers.celery import app
from workers.queues import Task

#: well below the time limit of a task, which kills its process
_WITHIN_SECONDS = 3.0


def run_batches(
    task: Task, run_batch: Callable[[], int], *, batch_timeout_seconds: float = 0.0, idle_ratio: float = 0.0
) -> None:
    """Takes steps while they find something to do; after three seconds the rest is sent on as the same task.

    `step_seconds`: so long before that no further step begins, for steps that must have ended by then. For each second
    that a step computed it `rests` so many before the next, so that others go first who share the machine.
    """
    no_step_after = time.monotonic() + _WITHIN_SECONDS - batch_timeout_seconds
    began = time.thread_time()
    while run_batch():
        pause = idle_ratio * (time.thread_time() - began)
        if time.monotonic() + pause > no_step_after:
            app.send_task(task.value)
            return
        time.sleep(pause)
        began = time.thread_time()
