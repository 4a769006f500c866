"""Finds partitions whose records wait too long for a decision, and says why.

The age of a partition's oldest undecided record is the time since its watermark: every record appended before that
has been decided. An issuer advances the watermark with every batch, and every two seconds while a partition is idle.
So the age of a partition is low unless a backlog is being worked off or nobody decides it.
"""

import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from sqlalchemy import Engine

from service.config import Settings
from service.domain.errors import Unavailable
from service.store import checkpoints
from service.store.checkpoints import Checkpoint, PartitionProgress
from service.store.engine import in_transaction
from service.stream import log_reader
from service.stream.partition_holders import GroupReader, Holder, partition_ends
from service.stream.topics import Group, Topic
from service.usecases.log_watch import LogWatch

#: a partition whose checkpoint and watermark do not change for so long is stalled
STALLED_SECONDS = 10.0
#: a report is reused for this time, however often readiness is requested
_REUSED_SECONDS = 2.0
#: a report waits so long for Kafka's answer; a later one goes into the next report
_ANSWER_SECONDS = 0.3

#: who holds a partition, and why it is late
Explanation = tuple[Holder | None, str]
_NOT_KNOWN_YET: Explanation = (None, "its holder is not known yet")


class LatePartition(NamedTuple):
    """A partition that may have an old undecided record, and the reason."""

    partition: int
    age_seconds: float
    #: whether its checkpoint and watermark have stopped changing; otherwise a backlog is being worked off
    stalled: bool
    #: the group member that holds it; None if nobody does or Kafka does not answer
    holder: Holder | None
    reason: str

    def is_held_by_another_issuer(self, client_id: str) -> bool:
        """Whether an issuer of this service with another client id holds it: that one reports it by itself."""
        return bool(self.holder and self.holder.is_issuer and self.holder.client_id != client_id)


class UndecidedReport(NamedTuple):
    """The age of each partition's oldest undecided record in seconds, and the partitions that are late."""

    ages: Mapping[int, float]
    late: tuple[LatePartition, ...] = ()


class UndecidedPartitions:
    """Observes the progress of all partitions.

    It asks Kafka only while a partition is late, and in a thread of its own: readiness must not wait for a broker.
    """

    def __init__(self, settings: Settings, engine: Engine, log_watch: LogWatch) -> None:
        self._settings = settings
        self._engine = engine
        self._log_watch = log_watch
        self._late_seconds = min(settings.undecided_alert_seconds, STALLED_SECONDS)
        self._group = GroupReader(settings)
        self._lock = threading.Lock()
        #: the last change of each partition that was observed: its checkpoint from then on, and the monotonic time
        self._changes: dict[int, tuple[Checkpoint | None, float]] = {}
        self._report = UndecidedReport({})
        self._executor = ThreadPoolExecutor(1, "undecided")
        self._asked: Future[dict[int, Explanation]] | None = None
        self._explanations: Mapping[int, Explanation] = {}
        self._next_check = 0.0

    def check(self) -> UndecidedReport:
        """Return a report that is at most two seconds old; raise Unavailable when the database does not answer."""
        with self._lock:
            if time.monotonic() < self._next_check:
                return self._report
            with in_transaction(self._engine) as tx:
                progress = checkpoints.progress(tx, self._log_watch.log.id, self._settings.topic_partitions)
            now = time.monotonic()
            for at, known in progress.items():
                if at not in self._changes or self._changes[at][0] != known.checkpoint:
                    self._changes[at] = known.checkpoint, now
            unchanged = {at: now - self._changes[at][1] for at in progress}
            # A partition whose watermark was never advanced is as old as this process's first look at it.
            ages = {
                at: unchanged[at] if known.watermark_age_seconds is None else max(0.0, known.watermark_age_seconds)
                for at, known in progress.items()
            }
            late = [at for at, age in ages.items() if age > self._late_seconds]
            self._explain_late(late, progress)
            self._report = UndecidedReport(
                ages,
                tuple(
                    LatePartition(
                        at, ages[at], unchanged[at] >= STALLED_SECONDS, *self._explanations.get(at, _NOT_KNOWN_YET)
                    )
                    for at in late
                ),
            )
            self._next_check = time.monotonic() + _REUSED_SECONDS
            return self._report

    def _explain_late(self, late: list[int], progress: Mapping[int, PartitionProgress]) -> None:
        """Take over Kafka's last answer, and ask again; without late partitions forget it."""
        if not late:
            self._asked, self._explanations = None, {}
            return
        if self._asked and self._asked.done():
            self._explanations, self._asked = self._asked.result(), None
        if self._asked is None:
            self._asked = self._executor.submit(self._explain, late, progress)
        if wait([self._asked], timeout=_ANSWER_SECONDS).done:
            self._explanations, self._asked = self._asked.result(), None

    def _explain(self, late: list[int], progress: Mapping[int, PartitionProgress]) -> dict[int, Explanation]:
        """Return who holds each late partition, what that means, and what to do."""
        try:
            holders = self._group.holders()
            served = [at for at in late if at in holders.by_partition and holders.by_partition[at].is_issuer]
            slow = self._explain_issuers(served, progress)
        except Unavailable as error:
            return dict.fromkeys(late, (None, f"its holder is unknown: {error}"))
        found: dict[int, Explanation] = {}
        for at in late:
            holder = holders.by_partition.get(at)
            if holder is None:
                state = "is rebalancing" if holders.rebalancing else "has no issuer for it: start one"
                found[at] = None, f"held by nobody: group `{Group.ISSUER}` {state}"
                continue
            other = "which is not an issuer of this service: stop it or change its group"
            meaning = slow.get(at, "see its /readyz") if holder.is_issuer else other
            held = f"held by client {holder.client_id!r} at {holder.host!r} (member {holder.member_id!r})"
            found[at] = holder, f"{held}, {meaning}"
        return found

    def _explain_issuers(self, partitions: list[int], progress: Mapping[int, PartitionProgress]) -> dict[int, str]:
        """Return why issuers are late with their partitions: an open transaction, or their number of records."""
        next_offsets = {at: checkpoint.next_offset for at in partitions if (checkpoint := progress[at].checkpoint)}
        ends = partition_ends(self._settings, next_offsets) if next_offsets else {}
        # From the last stable offset on, consumers get no record before the open transaction there ends.
        hiding = {at: end for at, end in ends.items() if end.last_stable_offset < end.end_offset}
        ranges = {at: (next_offsets[at], end.last_stable_offset) for at, end in hiding.items()}
        hidden = log_reader.without_records(self._settings, Topic.ISSUE_COUPON, ranges)
        return {
            at: f"an open transaction of another producer hides the records from offset {end.last_stable_offset} on:"
            " end it, or wait for its timeout"
            if at in hidden
            else f"{end.end_offset - next_offsets[at]} records behind: if that does not decrease, see its /readyz"
            for at, end in ends.items()
        }
