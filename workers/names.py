"""The closed vocabulary of Celery's side: queues, tasks, whose hint a task follows, and what beat starts."""

from enum import StrEnum


class Queue(StrEnum):
    """Every queue there is."""

    RETRY = "retry"
    DEAD_LETTER = "dead_letter"
    NOTIFY = "notify"
    MAINTENANCE = "maintenance"


class Task(StrEnum):
    """Every task there is; the part before the dot is its queue."""

    RETRY = "retry.issue"
    SETTLE = "retry.settle"
    DEAD_LETTER = "dead_letter.forward"
    NOTIFY = "notify.deliver"
    TELL_GATE = "maintenance.tell_gate"
    TELL_CHANGES = "maintenance.tell_changes"
    SWEEP = "maintenance.sweep"
    SETTLE_APPENDS = "maintenance.settle_appends"

    @property
    def queue(self) -> Queue:
        """Where the task waits."""
        return Queue(self.value.partition(".")[0])


class Hint(StrEnum):
    """Whose message made a task run."""

    BROKER = "broker"
    SWEEP = "sweep"


class Beat(StrEnum):
    """What beat starts, and how often."""

    SWEEP = "sweep"
    SETTLE_APPENDS = "settle_appends"

    @property
    def task(self) -> Task:
        """The task that is started."""
        return {Beat.SWEEP: Task.SWEEP, Beat.SETTLE_APPENDS: Task.SETTLE_APPENDS}[self]

    @property
    def every_seconds(self) -> float:
        """The interval between starts."""
        return {Beat.SWEEP: 1.0, Beat.SETTLE_APPENDS: 5.0}[self]
