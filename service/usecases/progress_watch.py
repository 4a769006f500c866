"""How far and how fast partitions are decided, as this process has seen it, and what follows for those who wait."""

import time
from collections.abc import Callable
from typing import NamedTuple

from service.domain.drain_rate import DrainRate, RateRange
from service.domain.request import RequestState, records_ahead
from service.domain.waiting import Prospect, outlook_of, wait_of
from service.usecases.lookup import RequestStatus, Snapshot


class PartitionProgress(NamedTuple):
    """The next offset to decide of a partition, and its rate while it has a backlog."""

    partition: int
    next_offset: int
    records_per_second: RateRange | None


class IssuanceStatus(NamedTuple):
    """The state of a request and what its user can expect."""

    request: RequestStatus
    prospect: Prospect
    #: the open log and the partition's next offset in the transaction that found the state; None if not known
    log_id: int | None
    next_offset: int | None


class ProgressWatch:
    """Keeps the checkpoints that were read, of the log that was open last. Use it in the event loop only.

    A next offset never decreases here, also if PostgreSQL has lost a commit and records are decided again: a position
    that was shown must not grow.
    """

    def __init__(self, now_seconds: Callable[[], float] = time.monotonic) -> None:
        self._now_seconds = now_seconds
        #: None before the first snapshot
        self.log_id: int | None = None
        self._progress: dict[int, PartitionProgress] = {}
        self._rates: dict[int, DrainRate] = {}

    def observe(self, snapshot: Snapshot) -> None:
        """Take over the checkpoints of a snapshot."""
        if snapshot.log_id != self.log_id:  # the offsets of another log mean other records
            self.log_id = snapshot.log_id
            self._progress.clear()
            self._rates.clear()
        now = self._now_seconds()
        for partition, checkpoint in snapshot.checkpoints.items():
            known, rate = self._progress.get(partition), self._rates.setdefault(partition, DrainRate())
            next_offset = max(checkpoint.next_offset, known.next_offset if known else 0)
            rate.observe(next_offset, now)
            self._progress[partition] = PartitionProgress(partition, next_offset, rate.range_at(now))

    def of(self, partition: int) -> PartitionProgress | None:
        """Return the progress of a partition, or None if it has no checkpoint."""
        return self._progress.get(partition)

    def describe(self, request: RequestStatus, snapshot: Snapshot | None = None) -> IssuanceStatus:
        """Return the state with what the user can expect.

        snapshot: in which the request was found. Without one a queued request has no outlook. The position is that of
        the last snapshot; the outlook compares the coupon with the checkpoint that was read with it.
        """
        progress = self.of(request.partition)
        checkpoint = snapshot and snapshot.checkpoints.get(request.partition)
        log_id, next_offset = snapshot and snapshot.log_id, checkpoint and checkpoint.next_offset
        if request.state is not RequestState.QUEUED:
            prospect = Prospect(outlook=outlook_of(request.state, None, None))
            return IssuanceStatus(request, prospect, log_id, next_offset)
        if progress and request.offset is not None:
            self._rates[request.partition].note_waiting(request.offset)
        position = records_ahead(request.offset, progress and progress.next_offset)
        eta = wait_of(position, progress and progress.records_per_second)
        coupon = snapshot and snapshot.coupons.get(request.coupon_id)
        outlook = outlook_of(request.state, records_ahead(request.offset, next_offset), coupon)
        return IssuanceStatus(request, Prospect(position, eta, outlook), log_id, next_offset)
