"""Finds partitions whose records wait too long for a decision, and says why.

The age of a partition's oldest undecided record is the time since its watermark: every record appended before that
has been decided. An issuer advances the watermark with every batch, and every two seconds while a partition is idle.
So the age of a partition is low unless a backlog is being worked off or nobody decides it.
"""

import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Engine

from service.config import Settings
from service.domain.errors import Unavailable
from service.store import checkpoints
from service.store.checkpoints import Checkpoint, PartitionProgress
from service.store.engine import in_transaction
from service.stream import log_reader
from service.stream.partition_holders import Holder, KafkaView, PartitionHolders
from service.stream.topics import Group, Topic

#: a partition whose checkpoint and watermark do not change for so long is stalled
STALLED_SECONDS = 10.0
#: a report is reused for this time, however often readiness is requested
_REUSED_SECONDS = 2.0


class LatePartition(NamedTuple):
    """A partition that may have an old undecided record, and the reason."""

    partition: int
    age_seconds: float
    #: whether its checkpoint and watermark have stopped changing; otherwise a backlog is being worked off
    stalled: bool
    #: the group member that holds it; None if nobody does or Kafka does not answer
    holder: Holder | None
    reason: str


class UndecidedReport(NamedTuple):
    """The age of each partition's oldest undecided record in seconds, and the partitions that are late."""

    ages: Mapping[int, float]
    late: tuple[LatePartition, ...] = ()


class UndecidedPartitions:
    """Observes the progress of all partitions. It asks Kafka only while a partition is late."""

    def __init__(self, settings: Settings, engine: Engine, log_id: int) -> None:
        self._settings = settings
        self._engine = engine
        self._log_id = log_id
        self._late_seconds = min(settings.undecided_alert_seconds, STALLED_SECONDS)
        self._holders = PartitionHolders(settings)
        self._lock = threading.Lock()
        #: the last change of each partition that was observed: its checkpoint from then on, and the monotonic time
        self._changes: dict[int, tuple[Checkpoint | None, float]] = {}
        self._report = UndecidedReport({})
        self._next_check = 0.0

    def check(self) -> UndecidedReport:
        """Return a report that is at most two seconds old; raise Unavailable when the database does not answer."""
        with self._lock:
            if time.monotonic() >= self._next_check:
                self._report = self._observe()
                self._next_check = time.monotonic() + _REUSED_SECONDS
            return self._report

    def _observe(self) -> UndecidedReport:
        with in_transaction(self._engine) as tx:
            progress = checkpoints.progress(tx, self._log_id, self._settings.topic_partitions)
        unchanged = self._unchanged_seconds(progress)
        # A partition whose watermark was never advanced is as old as this process's first look at it.
        ages = {
            at: unchanged[at] if known.watermark_age_seconds is None else max(0.0, known.watermark_age_seconds)
            for at, known in progress.items()
        }
        late = [at for at, age in ages.items() if age > self._late_seconds]
        if not late:
            return UndecidedReport(ages)
        return UndecidedReport(
            ages,
            tuple(
                LatePartition(at, ages[at], unchanged[at] >= STALLED_SECONDS, holder, reason)
                for at, (holder, reason) in self._explain(late, progress).items()
            ),
        )

    def _unchanged_seconds(self, progress: Mapping[int, PartitionProgress]) -> dict[int, float]:
        """Return for how long each partition has been seen at its present checkpoint, watermark included."""
        now = time.monotonic()
        for at, known in progress.items():
            if at not in self._changes or self._changes[at][0] != known.checkpoint:
                self._changes[at] = known.checkpoint, now
        return {at: now - self._changes[at][1] for at in progress}

    def _explain(
        self, late: list[int], progress: Mapping[int, PartitionProgress]
    ) -> dict[int, tuple[Holder | None, str]]:
        """Return the holder of each late partition, and why it is late."""
        try:
            view = self._holders.query(late)
            hidden = self._hidden_from(view, progress)
        except Unavailable as error:
            return dict.fromkeys(late, (None, f"its holder is unknown: {error}"))
        return {
            at: (
                view.holders.get(at),
                _reason(view, at, hidden.get(at), _records_behind(view, at, progress[at].checkpoint)),
            )
            for at in late
        }

    def _hidden_from(self, view: KafkaView, progress: Mapping[int, PartitionProgress]) -> dict[int, int]:
        """Return the partitions whose next record lies behind an open transaction, with the offset of its first record.

        Consumers get no record from that offset on before the transaction ends.
        """
        ranges = {
            at: (checkpoint.next_offset, ends.last_stable_offset)
            for at, ends in view.ends.items()
            if ends.last_stable_offset < ends.end_offset and (checkpoint := progress[at].checkpoint)
        }
        decided = log_reader.without_records(self._settings, Topic.ISSUE_COUPON, ranges)
        return {at: ranges[at][1] for at in decided}


def _records_behind(view: KafkaView, partition: int, checkpoint: Checkpoint | None) -> str:
    ends = view.ends.get(partition)
    return f"{ends.end_offset - checkpoint.next_offset} records behind" if ends and checkpoint else "lag unknown"


def _reason(view: KafkaView, partition: int, hidden_from: int | None, behind: str) -> str:
    """Return who holds a late partition, what that means, and what to do; `hidden_from` as in `_hidden_from`."""
    holder = view.holders.get(partition)
    if holder is None:
        state = "is rebalancing" if view.rebalancing else "has no issuer for it: start one"
        return f"held by nobody: group `{Group.ISSUER}` {state}"
    held = f"held by client {holder.client_id!r} at {holder.host!r} (member {holder.member_id!r})"
    if not holder.is_issuer:
        return f"{held}, which is not an issuer of this service: stop it or change its group"
    if hidden_from is None:
        return f"{held}, {behind}: if that does not decrease, see the issuer's /readyz"
    return (
        f"{held}: an open transaction of another producer hides the records from offset {hidden_from} on: end it, or"
        " wait for its timeout"
    )
