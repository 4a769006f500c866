"""A listener: one stream's request as it was last read, and the news that its client has not got yet."""

import asyncio
from enum import Enum, auto
from typing import NamedTuple

from service.domain.request import FINAL_STATES, RequestState
from service.store.checkpoints import Checkpoint
from service.usecases.progress_watch import IssuanceStatus, PartitionProgress

#: ticks in which the gate is asked for the offset of a request that has none
_PLACE_READS = 3


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
    """What a listener has not sent yet: the latest of each kind. Nothing at all: a sign of life."""

    status: IssuanceStatus | None
    progress: PartitionProgress | None
    end: StreamEnd | None


class Listener:
    """One stream: what its request was when it was last read, and the news for its client.

    News replace older ones that were not taken yet, so a slow client costs no memory.
    """

    __slots__ = (
        "_end", "_has_news", "_progress", "_status", "_waiter", "determine_at", "ends_at", "log_id", "places_to_read",
        "request", "seen",
    )  # fmt: skip

    def __init__(self, status: IssuanceStatus, ends_at: float) -> None:
        #: as it was last read
        self.request = status.request
        #: the log of the offsets
        self.log_id = status.log_id
        #: the next offset to decide when the request was last found to be queued; -1: read it again
        self.seen = -1 if status.next_offset is None else status.next_offset
        #: how often the gate is still asked for the offset, which it may get some milliseconds after the 202
        self.places_to_read = _PLACE_READS
        #: when the stream ends at the latest, by the monotonic clock
        self.ends_at = ends_at
        #: when it may be determined again whether the request is unknown, by the monotonic clock
        self.determine_at = 0.0
        self._status: IssuanceStatus | None = status
        self._progress: PartitionProgress | None = None
        self._end = StreamEnd.DECIDED if status.request.state in FINAL_STATES else None
        self._has_news = True
        self._waiter: asyncio.Future[None] | None = None

    def is_due(self, log_id: int, checkpoint: Checkpoint) -> bool:
        """Return whether the request may have been decided, or changed, since it was last read."""
        if self.request.state is not RequestState.QUEUED or self.log_id != log_id or self.seen < 0:
            return True
        return checkpoint.next_offset > (self.seen if self.request.offset is None else self.request.offset)

    def needs_place(self) -> bool:
        """Return whether the gate is to be asked for the offset once more."""
        self.places_to_read -= 1
        return self.places_to_read >= 0 and self.request.state is RequestState.QUEUED and self.request.offset is None

    def forget_offset(self, log_id: int) -> None:
        """Take over that another log is open: the offset means nothing there."""
        self.log_id, self.seen = log_id, -1
        if self.request.state is RequestState.QUEUED:
            self.request = self.request._replace(offset=None)

    def update(self, status: IssuanceStatus) -> None:
        """Tell that the request has another state."""
        self.request, self._status = status.request, status
        if status.request.state in FINAL_STATES:
            self._end = self._end or StreamEnd.DECIDED
        self.wake()

    def tell(self, progress: PartitionProgress) -> None:
        """Tell the progress of the partition."""
        self._progress = progress
        self.wake()

    def end(self, why: StreamEnd) -> None:
        """End the stream after what was told before."""
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
