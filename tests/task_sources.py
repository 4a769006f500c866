"""Which tasks ran by whose hint, as the worker's log has it."""

import re
from collections import Counter

from tests.system import System
from workers.queues import MessageSource, Task

_RUNS = re.compile(r"task runs .* hint=(\w+) task=([\w.]+)")
_HINTED = (Task.RETRY, Task.FORWARD_DEAD_LETTERS, Task.NOTIFY, Task.SYNC_GATE)


def tasks(system: System) -> Counter[tuple[str, str]]:
    """How many tasks ran, by hint and task."""
    return Counter(_RUNS.findall((system.stack.directory / "log" / "worker.log").read_text()))


def told(ran: Counter[tuple[str, str]]) -> str:
    """The tasks that follow hints, for eyes."""
    return ", ".join(
        f"{task} {ran[MessageSource.BROKER, task]} by the broker {ran[MessageSource.SWEEP, task]} by the sweep"
        for task in _HINTED
    )
