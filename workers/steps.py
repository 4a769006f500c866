"""Work that comes in steps: a task takes as many as fit, the rest is another task's."""

import time
from collections.abc import Callable

from workers.celery import app
from workers.names import Task

#: well below the time limit of a task, which kills its process
_WITHIN_SECONDS = 3.0
#: for each second that a step computes it rests so many: those who issue go first, where they share a machine
_RESTS = 3


def take(task: Task, step: Callable[[], int], step_seconds: float = 0.0) -> None:
    """Takes steps while they find something to do; after three seconds the rest is sent on as the same task.

    `step_seconds`: so long before that no further step begins, for steps that must have ended by then.
    """
    no_step_after = time.monotonic() + _WITHIN_SECONDS - step_seconds
    while _at_ease(step):
        if time.monotonic() > no_step_after:
            app.send_task(task.value)
            return


def _at_ease(step: Callable[[], int]) -> int:
    began = time.thread_time()
    found = step()
    if found:
        time.sleep(_RESTS * (time.thread_time() - began))
    return found
