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
from service.store import checkpoints
from service.store.checkpoints import Checkpoint, PartitionProgress
from service.store.engine import in_transaction
from service.stream.partition_holders import Holder
from service.usecases.late_partitions import Explanation, LatePartitionExplainer
from service.usecases.log_watch import LogWatch

#: a partition whose checkpoint and watermark do not change for so long is stalled
STALLED_SECONDS = 10.0
#: a backlog whose number of records reaches no new minimum for so long is growing
GROWING_SECONDS = 30.0
#: a report is reused for this time, however often readiness is requested
_REUSED_SECONDS = 2.0
#: a report waits so long for Kafka's answer; a later one goes into the next report
_ANSWER_SECONDS = 0.3

_NOT_KNOWN_YET = Explanation(None, "its holder is not known yet")


class LatePartition(NamedTuple):
    """A partition that may have an old undecided record, and the reason."""

    partition: int
    age_seconds: float
    #: whether its checkpoint and watermark have stopped changing; otherwise a backlog is being worked off
    stalled: bool
    #: whether that backlog does not get shorter, as far as Kafka says how many records it has
    growing: bool
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
        self._explainer = LatePartitionExplainer(settings)
        self._lock = threading.Lock()
        #: the last change of each partition that was observed: its checkpoint from then on, and the monotonic time
        self._changes: dict[int, tuple[Checkpoint | None, float]] = {}
        self._report = UndecidedReport({})
        self._executor = ThreadPoolExecutor(1, "undecided")
        self._asked: Future[dict[int, Explanation]] | None = None
        self._explanations: Mapping[int, Explanation] = {}
        #: the fewest records that a late partition was behind, and the monotonic time of that
        self._fewest: dict[int, tuple[int, float]] = {}
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
            self._report = UndecidedReport(ages, tuple(self._describe(at, ages[at], unchanged[at], now) for at in late))
            self._next_check = time.monotonic() + _REUSED_SECONDS
            return self._report

    def _describe(self, at: int, age_seconds: float, unchanged_seconds: float, now: float) -> LatePartition:
        explained = self._explanations.get(at, _NOT_KNOWN_YET)
        _, fewest_at = self._fewest.get(at, (0, now))
        return LatePartition(
            at,
            age_seconds,
            unchanged_seconds >= STALLED_SECONDS,
            now - fewest_at >= GROWING_SECONDS,
            explained.holder,
            explained.reason,
        )

    def _explain_late(self, late: list[int], progress: Mapping[int, PartitionProgress]) -> None:
        """Take over Kafka's last answer, and ask again; without late partitions forget it."""
        self._fewest = {at: fewest for at, fewest in self._fewest.items() if at in late}
        if not late:
            self._asked, self._explanations = None, {}
            return
        if self._asked and self._asked.done():
            self._take_over(self._asked.result())
        if self._asked is None:
            self._asked = self._executor.submit(self._explainer.explain, late, progress)
        if wait([self._asked], timeout=_ANSWER_SECONDS).done:
            self._take_over(self._asked.result())

    def _take_over(self, explanations: Mapping[int, Explanation]) -> None:
        self._explanations, self._asked = explanations, None
        for at, explained in explanations.items():
            if explained.behind is None:
                continue
            if not explained.behind or at not in self._fewest or explained.behind < self._fewest[at][0]:
                self._fewest[at] = explained.behind, time.monotonic()
