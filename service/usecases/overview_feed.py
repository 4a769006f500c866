"""Publishes one overview a second to all who watch, in one process: read once, encoded once."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context

from service.domain.errors import TooManyStreams
from service.limits import MAX_DASHBOARD_STREAMS
from service.log import get_logger
from service.log_events import LogEvent
from service.usecases.overview import Overview, OverviewReader

_TICK_SECONDS = 1.0
_RETRY_AFTER_SECONDS = 5
_log = get_logger(__name__)


class Snapshot:
    """An overview, and what is sent of it."""

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._rendered: bytes | None = None

    def rendered(self, render: Callable[[Overview], bytes]) -> bytes:
        """Return what `render` makes of the overview; it is called once for all viewers."""
        if self._rendered is None:
            self._rendered = render(self._overview)
        return self._rendered


class Viewer:
    """One stream: it gets the latest snapshot, and misses those for which it was too slow."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._has_ended = False
        self._woken = asyncio.Event()

    def publish(self, snapshot: Snapshot) -> None:
        """Take over a snapshot in place of one that was not sent yet."""
        self._snapshot = snapshot
        self._woken.set()

    def end(self) -> None:
        """End the stream."""
        self._has_ended = True
        self._woken.set()

    async def next(self) -> Snapshot | None:
        """Wait for a snapshot; None: the stream ends."""
        await self._woken.wait()
        self._woken.clear()
        return None if self._has_ended else self._snapshot


class OverviewFeed:
    """Serves all viewers of a process. While nobody watches, nothing is read."""

    def __init__(self, reader: OverviewReader) -> None:
        self._reader = reader
        self._viewers: set[Viewer] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._is_closed = False

    @contextmanager
    def watch(self) -> Iterator[Viewer]:
        """Open a stream for the block, and count it; raise TooManyStreams."""
        if len(self._viewers) >= MAX_DASHBOARD_STREAMS:
            raise TooManyStreams("The process serves as many dashboards as it may.", _RETRY_AFTER_SECONDS)
        viewer = Viewer()
        self._viewers.add(viewer)
        if self._is_closed:
            viewer.end()
        elif self._ticking is None or self._ticking.done():
            # a context of its own: it serves all viewers, so log lines must not carry the fields of the first one
            self._ticking = asyncio.get_running_loop().create_task(self._tick_while_watched(), context=Context())
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def close(self) -> None:
        """End all streams, and every stream that is opened later, at once. A second call has no effect."""
        self._is_closed = True
        for viewer in self._viewers:
            viewer.end()

    async def stop(self) -> None:
        """End all streams, and the read in progress."""
        self.close()
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)

    async def _tick_while_watched(self) -> None:
        loop = asyncio.get_running_loop()
        while self._viewers:
            began = loop.time()
            try:
                snapshot = Snapshot(await self._reader.read())
            except Exception as error:  # noqa: BLE001  # logged; the viewers see that the snapshot grows old
                _log.warning(LogEvent.OVERVIEW_NOT_READ, reason=repr(error))
            else:
                for viewer in tuple(self._viewers):
                    viewer.publish(snapshot)
            await asyncio.sleep(max(0.0, began + _TICK_SECONDS - loop.time()))
