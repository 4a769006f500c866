"""Celery's queues, tasks, message sources and beat schedule."""

from enum import StrEnum


class Queue(StrEnum):
    """Every queue."""

    RETRY = "retry"
    DEAD_LETTER = "dead_letter"
    NOTIFY = "notify"
    MAINTENANCE = "maintenance"


#: precedes the name of a queue over Kafka, where a queue is a topic beside other services' topics
TOPIC_PREFIX = "coupon.celery."


def is_task_queue(name: str) -> bool:
    """Return whether the broker's queue is one of ours, and not one that Celery uses for events and commands."""
    return name.removeprefix(TOPIC_PREFIX) in set(Queue)


class Task(StrEnum):
    """Every task; the name before the dot is its queue."""

    RETRY = "retry.issue"
    DECIDE_STANDBY = "retry.decide_standby"
    FORWARD_DEAD_LETTERS = "dead_letter.forward"
    NOTIFY = "notify.deliver"
    SYNC_GATE = "maintenance.sync_gate"
    SYNC_CHANGES = "maintenance.sync_changes"
    SWEEP = "maintenance.sweep"
    RELEASE_EXPIRED = "maintenance.release_expired"
    EVICT_ENDED = "maintenance.evict_ended"

    @property
    def queue(self) -> Queue:
        """The queue that the task is sent to."""
        return Queue(self.value.partition(".")[0])


class MessageSource(StrEnum):
    """Who sent the message that made a task run."""

    #: sent after a commit, by beat, or by Celery's own retry
    BROKER = "broker"
    #: sent by the sweep, because the first message was lost
    SWEEP = "sweep"


class BeatEntry(StrEnum):
    """Every task that beat schedules, and how often."""

    SWEEP = "sweep"
    RELEASE_EXPIRED = "release_expired"
    EVICT_ENDED = "evict_ended"

    @property
    def task(self) -> Task:
        """The task that is started."""
        return {
            BeatEntry.SWEEP: Task.SWEEP,
            BeatEntry.RELEASE_EXPIRED: Task.RELEASE_EXPIRED,
            BeatEntry.EVICT_ENDED: Task.EVICT_ENDED,
        }[self]

    @property
    def every_seconds(self) -> float:
        """The interval between starts."""
        return {BeatEntry.SWEEP: 1.0, BeatEntry.RELEASE_EXPIRED: 5.0, BeatEntry.EVICT_ENDED: 60.0}[self]
