"""Publishes to the listeners of a process how their requests change, from one transaction a second for all of them."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import partial
from typing import NamedTuple

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
from service.usecases.progress_watch import IssuanceStatus, PartitionProgress, ProgressWatch
from service.usecases.stream_listener import Listener, StreamEnd

_TICK_SECONDS = 1.0
#: a stream on which nothing was sent for so long gets a comment, before proxies end it
HEARTBEAT_SECONDS = 15.0
#: how often a request is determined again that is neither decided nor certainly unknown
_DETERMINE_SECONDS = 5.0
#: part of the longest time of a stream by which streams end earlier at random, so that they do not end together
_END_SPREAD = 0.1
_MAX_BACKOFF_SECONDS = 10.0
#: requests that one transaction reads at most, within the timeout of a statement
_MAX_READS = 2_000
#: listeners that are woken before the event loop gets to other work
_WAKE_BATCH_SIZE = 10
_RETRY_AFTER_SECONDS = 5
_log = get_logger(__name__)


class _Partition:
    """The listeners to requests of one partition."""

    __slots__ = ("listeners", "published", "published_at")

    def __init__(self, now: float) -> None:
        self.listeners: set[Listener] = set()
        #: the progress that was published last
        self.published: PartitionProgress | None = None
        self.published_at = now

    def needs(self, progress: PartitionProgress) -> bool:
        """Return whether the progress is to be published: the partition has moved, or its rate is no longer known."""
        last = self.published
        return (
            last is None
            or progress.next_offset != last.next_offset
            or (progress.records_per_second is None and last.records_per_second is not None)
        )


class _Backoff:
    """A growing pause after each failure."""

    def __init__(self) -> None:
        #: since the last success
        self.failures = 0
        self._next_at = 0.0

    def is_over(self, now: float) -> bool:
        return now >= self._next_at

    def fail(self, now: float) -> None:
        self.failures += 1
        self._next_at = now + backoff_seconds(
            self.failures, initial_seconds=_TICK_SECONDS, max_seconds=_MAX_BACKOFF_SECONDS, jitter=jitter()
        )

    def succeed(self) -> None:
        self.failures = 0


class _InDoubt(NamedTuple):
    """A listener whose request must be determined, as it was when that was found."""

    listener: Listener
    request: RequestStatus
    found: Undetermined

    def is_answered(self) -> bool:
        """Return whether the stream has ended or the request was read with another result meanwhile."""
        return self.listener.has_ended or self.listener.request != self.request


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
        self._read_backoff = _Backoff()
        self._offset_backoff = _Backoff()

    @contextmanager
    def listen(self, status: IssuanceStatus, max_seconds: float) -> Iterator[Listener]:
        """Open a stream for the block, and count it; raise TooManyStreams.

        max_seconds: how long the credentials are valid.
        """
        self._require_room(status.request.user_id)
        longest = MAX_STREAM_SECONDS * (1 - _END_SPREAD * jitter())
        now = self._now()
        listener = Listener(status, now, now + min(max_seconds, longest))
        user_id, number = status.request.user_id, status.request.partition
        partition = self._partitions.setdefault(number, _Partition(now))
        partition.listeners.add(listener)
        self._count(user_id, 1)
        if self._is_closed:
            listener.end(StreamEnd.CLOSED)
        elif self._ticking is None or self._ticking.done():
            # a context of its own: it serves all listeners, so log lines must not carry the fields of the first one
            self._ticking = asyncio.get_running_loop().create_task(
                self._tick_while_there_are_listeners(), context=Context()
            )
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

    async def _tick_while_there_are_listeners(self) -> None:
        """Read the database in a task of its own: the streams get comments also while it does not answer."""
        while self._partitions:
            now = self._now()
            for partition in list(self._partitions.values()):
                await self._keep_alive(partition, now)
            if (self._reading is None or self._reading.done()) and self._read_backoff.is_over(now):
                self._reading = asyncio.create_task(self._read())
            await asyncio.sleep(_TICK_SECONDS)

    async def _keep_alive(self, partition: _Partition, now: float) -> None:
        is_silent = now >= partition.published_at + HEARTBEAT_SECONDS
        if is_silent:
            partition.published_at = now
        async for listener in _in_batches(partition.listeners):
            if now >= listener.ends_at:
                listener.end(StreamEnd.CLOSED)
            elif is_silent:
                listener.wake()

    async def _read(self) -> None:
        """Read once what may have changed, and publish it; after a failure wait longer before the next time."""
        try:
            await self._read_and_publish()
        except Exception as error:  # noqa: BLE001  # logged; the streams stay open
            self._read_backoff.fail(self._now())
            if self._read_backoff.failures == 1:
                _log.warning(LogEvent.STREAMS_DELAYED, reason=str(error))
        else:
            if self._read_backoff.failures:
                _log.info(LogEvent.STREAMS_RESUMED, failures=self._read_backoff.failures)
            self._read_backoff.succeed()

    async def _read_and_publish(self) -> None:
        listeners = self._listeners()
        snapshot = await self._threads.run(self._lookup.find_chosen, partial(self._choose, listeners))
        self._progress.observe(snapshot)
        in_doubt = [one async for listener in _in_batches(listeners) if (one := self._take(listener, snapshot))]
        if in_doubt and (self._determining is None or self._determining.done()):
            self._determining = asyncio.create_task(self._determine(in_doubt, snapshot))
        await self._find_offsets(listeners, snapshot)
        await self._publish_progress()

    def _choose(self, listeners: Sequence[Listener], log_id: int, by_partition: Mapping[int, Checkpoint]) -> list[str]:
        """Return the ids of the requests to read, those that were not read for longest. Called in another thread."""
        now = self._now()
        needs_offset = self._offset_backoff.is_over(now)
        due = [
            one
            for one in listeners
            if not one.has_ended
            and (checkpoint := by_partition.get(one.request.partition)) is not None
            and (
                one.is_due(log_id, checkpoint, now)
                or (needs_offset and one.needs_offset())
                or (now >= one.determine_at and self._lookup.may_be_unknown(one.request, by_partition))
            )
        ]
        due.sort(key=lambda one: one.read_at)
        return [one.request.request_id for one in due[:_MAX_READS]]

    def _take(self, listener: Listener, snapshot: Snapshot) -> _InDoubt | None:
        """Publish to a listener what was found of its request; return it if it must be determined."""
        if listener.log_id != snapshot.log_id:
            listener.forget_offset(snapshot.log_id)
        name, now = listener.request.request_id, self._now()
        if name not in snapshot.found:
            return None
        listener.read_at = now
        found = snapshot.found[name]
        if isinstance(found, RequestStatus):
            self._publish_status(listener, found, snapshot)
            listener.seen = snapshot.checkpoints[listener.request.partition].next_offset
        if isinstance(found, Undetermined) and not listener.has_ended and now >= listener.determine_at:
            return _InDoubt(listener, listener.request, found)
        return None

    def _publish_status(self, listener: Listener, found: RequestStatus, snapshot: Snapshot) -> None:
        """Publish a state if it, or the outlook in the snapshot, is another one than before."""
        if found.offset is None:  # of a queued request only the gate knows it
            found = found._replace(offset=listener.request.offset)
        status = self._progress.describe(found, snapshot)
        if (found, status.prospect.outlook) != (listener.request, listener.outlook):
            listener.update(status)

    async def _find_offsets(self, listeners: Sequence[Listener], snapshot: Snapshot) -> None:
        """Publish the offsets of requests in the snapshot that the gate has by now."""
        asked = [one for one in listeners if one.needs_offset() and one.request.request_id in snapshot.found]
        if not asked or not self._offset_backoff.is_over(self._now()):
            return
        try:
            offsets = await self._gate.read_offsets([one.request.key for one in asked])
        except Unavailable:
            self._offset_backoff.fail(self._now())
            return
        self._offset_backoff.succeed()
        for listener, offset in zip(asked, offsets, strict=True):
            listener.offset_reads_left -= 1
            if offset is not None and listener.request.state is RequestState.QUEUED:
                self._publish_status(listener, listener.request._replace(offset=offset), snapshot)

    async def _determine(self, in_doubt: Sequence[_InDoubt], snapshot: Snapshot) -> None:
        """Find out whether requests are unknown. The snapshot, in which they were in doubt, gives the outlook."""
        threads = self._determining_threads
        with suppress(Retryable):
            asked = [one.found for one in in_doubt]
            determined = await threads.run(self._lookup.determine_many, asked, threads.cancellation)
            for one, status in zip(in_doubt, determined, strict=True):
                if one.is_answered():
                    continue
                if status is None:
                    one.listener.end(StreamEnd.UNKNOWN)
                else:
                    self._publish_status(one.listener, status, snapshot)
        for one in in_doubt:
            one.listener.determine_at = self._now() + _DETERMINE_SECONDS

    async def _publish_progress(self) -> None:
        for number, partition in list(self._partitions.items()):
            progress = self._progress.of(number)
            if progress is not None and partition.needs(progress):
                partition.published, partition.published_at = progress, self._now()
                async for listener in _in_batches(partition.listeners):
                    listener.update_progress(progress)


async def _in_batches(listeners: Iterable[Listener]) -> AsyncIterator[Listener]:
    """Yield the present listeners, and let the event loop do other work after each batch: a woken listener sends."""
    for number, listener in enumerate(tuple(listeners), 1):
        yield listener
        if number % _WAKE_BATCH_SIZE == 0:
            await asyncio.sleep(0)
