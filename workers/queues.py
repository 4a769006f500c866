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
    DECIDE_STANDBY = "retry.decide_standby"
    FORWARD_DEAD_LETTERS = "dead_letter.forward"
    NOTIFY = "notify.deliver"
    SYNC_GATE = "maintenance.sync_gate"
    SYNC_CHANGES = "maintenance.sync_changes"
    SWEEP = "maintenance.sweep"
    RELEASE_EXPIRED = "maintenance.release_expired"

    @property
    def queue(self) -> Queue:
        """Where the task waits."""
        return Queue(self.value.partition(".")[0])


class MessageSource(StrEnum):
    """Whose message made a task run."""

    BROKER = "broker"
    SWEEP = "sweep"


class BeatEntry(StrEnum):
    """What beat starts, and how often."""

    SWEEP = "sweep"
    RELEASE_EXPIRED = "release_expired"

    @property
    def task(self) -> Task:
        """The task that is started."""
        return {BeatEntry.SWEEP: Task.SWEEP, BeatEntry.RELEASE_EXPIRED: Task.RELEASE_EXPIRED}[self]

    @property
    def every_seconds(self) -> float:
        """The interval between starts."""
        return {BeatEntry.SWEEP: 1.0, BeatEntry.RELEASE_EXPIRED: 5.0}[self]
