"""Counts the tasks that ran, by task and by who sent the message, from the worker's log."""

import re
from collections import Counter

from tests.system import System
from workers.queues import MessageSource, Task

_RUNS = re.compile(r"task\.started .*source=(\w+) task=([\w.]+)")
_COUNTED = (Task.RETRY, Task.FORWARD_DEAD_LETTERS, Task.NOTIFY, Task.SYNC_GATE)


def tasks(system: System) -> Counter[tuple[str, str]]:
    """Return how many tasks ran, by source and task."""
    return Counter(_RUNS.findall((system.stack.directory / "log" / "worker.log").read_text()))


def describe(ran: Counter[tuple[str, str]]) -> str:
    """Return one line of text with the numbers of tasks by source."""
    return ", ".join(
        f"{task} {ran[MessageSource.BROKER, task]} by the broker {ran[MessageSource.SWEEP, task]} by the sweep"
        for task in _COUNTED
    )
