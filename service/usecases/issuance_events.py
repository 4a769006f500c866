"""Tells the listeners of a process what becomes of their requests, with one transaction a second for all of them."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial

from service.clock import jitter
from service.domain.errors import Retryable, TooManyStreams, Unavailable
from service.domain.request import RequestState
from service.domain.retry import backoff_seconds
from service.gate.async_gate import AsyncGate
from service.limits import MAX_STREAM_SECONDS, MAX_STREAMS_PER_USER
from service.log import get_logger
from service.log_events import LogEvent
from service.metrics import OPEN_STREAMS
from service.store.checkpoints import Checkpoint
from service.usecases.lookup import Lookup, RequestStatus, Snapshot, Undetermined
from service.usecases.operator_work import BoundedThreads
from service.usecases.progress_watch import IssuanceStatus, ProgressWatch
from service.usecases.stream_listener import Listener, StreamEnd

_TICK_SECONDS = 1.0
#: a stream on which nothing was sent for so long gets a sign of life, before proxies take it for dead
HEARTBEAT_SECONDS = 15.0
#: how often a request is determined again that is neither decided nor certainly unknown
_DETERMINE_SECONDS = 5.0
#: part of the longest time of a stream by which streams end earlier at random, so that they do not end together
_END_SPREAD = 0.1
_MAX_BACKOFF_SECONDS = 10.0
_RETRY_AFTER_SECONDS = 5
_log = get_logger(__name__)


class _Partition:
    """The listeners to requests of one partition."""

    __slots__ = ("listeners", "told", "told_at")

    def __init__(self, now: float) -> None:
        self.listeners: set[Listener] = set()
        #: the next offset that was told last
        self.told = -1
        self.told_at = now


class IssuanceEvents:
    """Serves all streams of a process, in its event loop.

    While there are listeners, one transaction a second reads the checkpoints and the states of those requests that may
    have been decided. The database is read and nothing else, so that no event depends on Redis or another process.
    While it does not answer, the streams stay open.
    """

    def __init__(
        self,
        lookup: Lookup,
        gate: AsyncGate,
        progress: ProgressWatch,
        threads: BoundedThreads,
        determining_threads: BoundedThreads,
        max_streams: int,
        now_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_streams`: of this process. `threads` and `determining_threads` are those of StatusReader."""
        self._lookup = lookup
        self._gate = gate
        self._progress = progress
        self._threads = threads
        self._determining_threads = determining_threads
        self._max_streams = max_streams
        self._now = now_seconds
        self._partitions: dict[int, _Partition] = {}
        self._streams = 0
        self._streams_of_user: Counter[int] = Counter()
        self._is_closed = False
        self._ticking: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._determining: asyncio.Task[None] | None = None
        #: transactions that failed since the last one that did not
        self._failures = 0
        self._next_read_at = 0.0

    @contextmanager
    def listen(self, status: IssuanceStatus, max_seconds: float) -> Iterator[Listener]:
        """Open a stream for the block, and count it; raise TooManyStreams.

        max_seconds: how long the credentials are valid.
        """
        self._require_room(status.request.user_id)
        longest = MAX_STREAM_SECONDS * (1 - _END_SPREAD * jitter())
        listener = Listener(status, self._now() + min(max_seconds, longest))
        user_id, number = status.request.user_id, status.request.partition
        partition = self._partitions.setdefault(number, _Partition(self._now()))
        partition.listeners.add(listener)
        self._count(user_id, 1)
        if self._is_closed:
            listener.end(StreamEnd.CLOSED)
        elif self._ticking is None or self._ticking.done():
            self._ticking = asyncio.get_running_loop().create_task(self._tick_while_somebody_listens())
        try:
            yield listener
        finally:
            self._count(user_id, -1)
            partition.listeners.discard(listener)
            if not partition.listeners and self._partitions.get(number) is partition:
                del self._partitions[number]

    def close(self) -> None:
        """End all streams, and every stream that is opened later, at once. A second call has no effect."""
        if not self._is_closed:
            self._is_closed = True
            for listener in self._listeners():
                listener.end(StreamEnd.CLOSED)

    async def stop(self) -> None:
        """End all streams, and wait for the work in progress."""
        self.close()
        tasks = [task for task in (self._ticking, self._reading, self._determining) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _require_room(self, user_id: int) -> None:
        if self._streams_of_user[user_id] >= MAX_STREAMS_PER_USER:
            text = f"This user has {MAX_STREAMS_PER_USER} open streams, which is the most that one may have."
            raise TooManyStreams(text, _RETRY_AFTER_SECONDS)
        if self._streams >= self._max_streams:
            raise TooManyStreams("The process serves as many streams as it may.", _RETRY_AFTER_SECONDS)

    def _count(self, user_id: int, change: int) -> None:
        OPEN_STREAMS.inc(change)
        self._streams += change
        self._streams_of_user[user_id] += change
        if not self._streams_of_user[user_id]:
            del self._streams_of_user[user_id]

    def _listeners(self) -> list[Listener]:
        return [listener for partition in self._partitions.values() for listener in partition.listeners]

    async def _tick_while_somebody_listens(self) -> None:
        """Read the database in a task of its own: the streams get signs of life also while it does not answer."""
        while self._partitions:
            now = self._now()
            for partition in self._partitions.values():
                self._keep_alive(partition, now)
            if (self._reading is None or self._reading.done()) and now >= self._next_read_at:
                self._reading = asyncio.create_task(self._read())
            await asyncio.sleep(_TICK_SECONDS)

    def _keep_alive(self, partition: _Partition, now: float) -> None:
        is_silent = now >= partition.told_at + HEARTBEAT_SECONDS
        for listener in partition.listeners:
            if now >= listener.ends_at:
                listener.end(StreamEnd.CLOSED)
            elif is_silent:
                listener.wake()
        if is_silent:
            partition.told_at = now

    async def _read(self) -> None:
        """Read once what may have changed, and tell it; after a failure wait longer before the next time."""
        try:
            await self._read_and_tell()
        except Exception as error:  # noqa: BLE001  # logged; the streams stay open
            self._failures += 1
            self._next_read_at = self._now() + backoff_seconds(
                self._failures, initial_seconds=_TICK_SECONDS, max_seconds=_MAX_BACKOFF_SECONDS, jitter=jitter()
            )
            if self._failures == 1:
                _log.warning(LogEvent.STREAMS_DELAYED, reason=str(error))
        else:
            if self._failures:
                _log.info(LogEvent.STREAMS_RESUMED, failures=self._failures)
            self._failures = 0

    async def _read_and_tell(self) -> None:
        listeners = self._listeners()
        snapshot = await self._threads.run(self._lookup.find_chosen, partial(self._choose, listeners))
        self._progress.observe(snapshot)
        in_doubt = [
            (listener, found) for listener in listeners if (found := self._take(listener, snapshot)) is not None
        ]
        if in_doubt and (self._determining is None or self._determining.done()):
            self._determining = asyncio.create_task(self._determine(in_doubt))
        await self._find_places([listener for listener in listeners if listener.needs_place()])
        self._tell_progress()

    def _choose(self, listeners: Sequence[Listener], log_id: int, by_partition: Mapping[int, Checkpoint]) -> list[str]:
        """Return the ids of the requests that may have been decided, or are in doubt. Called in another thread."""
        now = self._now()
        return [
            one.request.request_id
            for one in listeners
            if (checkpoint := by_partition.get(one.request.partition)) is not None
            and (
                one.is_due(log_id, checkpoint)
                or (now >= one.determine_at and self._lookup.may_be_unknown(one.request, by_partition))
            )
        ]

    def _take(self, listener: Listener, snapshot: Snapshot) -> Undetermined | None:
        """Tell a listener what was found of its request; return it if it must be determined."""
        if listener.log_id != snapshot.log_id:
            listener.forget_offset(snapshot.log_id)
        found = snapshot.found.get(listener.request.request_id)
        if isinstance(found, RequestStatus):
            self._tell_status(listener, found)
            listener.seen = snapshot.checkpoints[listener.request.partition].next_offset
        return found if isinstance(found, Undetermined) and self._now() >= listener.determine_at else None

    def _tell_status(self, listener: Listener, found: RequestStatus) -> None:
        if found.offset is None:  # of a queued request only the gate knows it
            found = found._replace(offset=listener.request.offset)
        if found != listener.request:
            listener.update(self._progress.describe(found))

    async def _find_places(self, listeners: Sequence[Listener]) -> None:
        """Tell listeners the offsets of their requests that the gate has by now."""
        if not listeners:
            return
        asked = [(one.request.coupon_id, one.request.user_id, one.request.request_id) for one in listeners]
        with suppress(Unavailable):
            for listener, place in zip(listeners, await self._gate.read_places(asked), strict=True):
                if place and place.offset is not None and listener.request.state is RequestState.QUEUED:
                    self._tell_status(listener, listener.request._replace(offset=place.offset))

    async def _determine(self, in_doubt: Sequence[tuple[Listener, Undetermined]]) -> None:
        """Find out whether requests are unknown, one after the other: each may read the log."""
        for listener, found in in_doubt:
            listener.determine_at = self._now() + _DETERMINE_SECONDS
            with suppress(Retryable):
                determined = await self._determining_threads.run(self._lookup.determine, found)
                if determined is None:
                    listener.end(StreamEnd.UNKNOWN)
                else:
                    self._tell_status(listener, determined)

    def _tell_progress(self) -> None:
        for number, partition in self._partitions.items():
            progress = self._progress.of(number)
            if progress is not None and progress.next_offset != partition.told:
                partition.told, partition.told_at = progress.next_offset, self._now()
                for listener in partition.listeners:
                    listener.tell(progress)
