"""A listener: one stream's request as it was last read, and the news that its client has not got yet."""

import asyncio
from enum import Enum, auto
from typing import NamedTuple

from service.domain.request import FINAL_STATES, RequestState
from service.store.checkpoints import Checkpoint
from service.usecases.progress_watch import IssuanceStatus, PartitionProgress

#: how often the gate is asked for the offset of a request: it may get it some milliseconds after the 202
_OFFSET_READS = 3
#: A queued request is read again after so many seconds while its partition moves, also if its offset was not reached:
#: the recorded offset may be too large, and the outlook changes.
REREAD_SECONDS = 5.0


class StreamEnd(Enum):
    """Why a stream ends."""

    #: its last status is final
    DECIDED = auto()
    #: the request certainly was not accepted
    UNKNOWN = auto()
    #: the process shuts down, the credentials expire, or the stream is old: the client should connect again
    CLOSED = auto()
    #: the client has gone
    GONE = auto()


class News(NamedTuple):
    """What a listener has not sent yet: the latest of each kind. Nothing at all: send a comment."""

    status: IssuanceStatus | None
    progress: PartitionProgress | None
    end: StreamEnd | None


class Listener:
    """One stream: what its request was when it was last read, and the news for its client.

    News replace older ones that were not taken yet, so a slow client costs no memory.
    """

    __slots__ = (
        "_end", "_has_news", "_progress", "_status", "_waiter", "determine_at", "ends_at", "log_id",
        "offset_reads_left", "outlook", "read_at", "request", "seen",
    )  # fmt: skip

    def __init__(self, status: IssuanceStatus, now: float, ends_at: float) -> None:
        #: as it was last read
        self.request = status.request
        self.outlook = status.prospect.outlook
        #: when it was last read, by the monotonic clock
        self.read_at = now
        #: the log of the offsets
        self.log_id = status.log_id
        #: the next offset in the transaction that last found the request queued; -1: read it again
        self.seen = -1 if status.next_offset is None else status.next_offset
        #: answers of the gate after which it is no longer asked for the offset
        self.offset_reads_left = _OFFSET_READS
        #: when the stream ends at the latest, by the monotonic clock
        self.ends_at = ends_at
        #: when it may be determined again whether the request is unknown, by the monotonic clock
        self.determine_at = 0.0
        self._status: IssuanceStatus | None = status
        self._progress: PartitionProgress | None = None
        self._end = StreamEnd.DECIDED if status.request.state in FINAL_STATES else None
        self._has_news = True
        self._waiter: asyncio.Future[None] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is sent after the present news."""
        return self._end is not None

    def is_due(self, log_id: int, checkpoint: Checkpoint, now: float) -> bool:
        """Return whether the request may have been decided, or changed, since it was last read."""
        if self.request.state is not RequestState.QUEUED or self.log_id != log_id or self.seen < 0:
            return True
        has_moved = checkpoint.next_offset != self.seen  # also back, if PostgreSQL has lost a commit
        if self.request.offset is None:
            return has_moved
        return checkpoint.next_offset > self.request.offset or (has_moved and now >= self.read_at + REREAD_SECONDS)

    def needs_offset(self) -> bool:
        """Return whether the gate is to be asked for the offset once more."""
        return self.offset_reads_left > 0 and self.request.state is RequestState.QUEUED and self.request.offset is None

    def forget_offset(self, log_id: int) -> None:
        """Take over that another log is open: the offset means nothing there."""
        self.log_id, self.seen = log_id, -1
        if self.request.state is RequestState.QUEUED:
            self.request = self.request._replace(offset=None)

    def update(self, status: IssuanceStatus) -> None:
        """Take over another state or outlook. After an end it is ignored: it may be older than a final state."""
        if self._end is not None:
            return
        self.request, self.outlook, self._status = status.request, status.prospect.outlook, status
        if status.request.state in FINAL_STATES:
            self._end = StreamEnd.DECIDED
        self.wake()

    def update_progress(self, progress: PartitionProgress) -> None:
        """Take over the progress of the partition."""
        self._progress = progress
        self.wake()

    def end(self, why: StreamEnd) -> None:
        """End the stream after the news that were not sent yet."""
        self._end = self._end or why
        self.wake()

    def wake(self) -> None:
        """Let `next` return."""
        self._has_news = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> News:
        """Wait for news; after an end there are none."""
        if not self._has_news:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
            self._waiter = None
        news = News(self._status, self._progress, self._end)
        self._status = self._progress = None
        self._has_news = False
        return news
