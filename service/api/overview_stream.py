"""The response that streams the overview to one viewer of the dashboard, as server-sent events."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from starlette.types import Send

from service.api.event_stream import EventStream, OpenStream, retry_event
from service.api.schemas.dashboard import overview_view
from service.server.responses import encode
from service.usecases.overview import Overview
from service.usecases.overview_feed import OverviewFeed, Viewer


class OverviewStream(EventStream):
    """A stream for one viewer, until the client goes, the process shuts down or the credentials end."""

    def __init__(self, feed: OverviewFeed, is_authorized: Callable[[], bool]) -> None:
        """`is_authorized`: whether the caller may still read; called before each event."""
        super().__init__()
        self._feed = feed
        self._is_authorized = is_authorized

    @contextmanager
    def open(self) -> Iterator[OpenStream]:
        """Watch for the block; raise TooManyStreams."""
        with self._feed.watch() as viewer:
            yield OpenStream(viewer.end, partial(self._send_snapshots, viewer))

    async def _send_snapshots(self, viewer: Viewer, send: Send) -> None:
        await send({"type": "http.response.body", "body": retry_event(), "more_body": True})
        while (snapshot := await viewer.next()) is not None and self._is_authorized():
            body = snapshot.rendered(_overview_event)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body"})


def _overview_event(overview: Overview) -> bytes:
    return b"event: overview\ndata: %b\n\n" % encode(overview_view(overview))
