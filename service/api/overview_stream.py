"""The response that streams the overview to one viewer of the dashboard, as server-sent events."""

from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.event_stream import EVENT_STREAM, STREAM_HEADERS, retry_event
from service.api.schemas.dashboard import overview_view
from service.server.responses import encode
from service.usecases.overview import Overview
from service.usecases.overview_feed import OverviewFeed


class OverviewStream(Response):
    """A stream for one viewer, until the client goes, the process shuts down or the credentials end."""

    media_type = EVENT_STREAM

    def __init__(self, feed: OverviewFeed, is_authorized: Callable[[], bool]) -> None:
        """`is_authorized`: whether the caller may still read; called before each event."""
        super().__init__()
        self._feed = feed
        self._is_authorized = is_authorized

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send events until the viewer's end; the stream is counted for exactly this call."""
        start = {"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS}
        if scope["state"].get("is_head"):
            await send(start)
            await send({"type": "http.response.body"})
            return
        with self._feed.watch() as viewer:
            scope["state"]["begin_stream"](viewer.end)
            await send(start)
            await send({"type": "http.response.body", "body": retry_event(), "more_body": True})
            while (snapshot := await viewer.next()) is not None and self._is_authorized():
                body = snapshot.rendered(_overview_event)
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body"})


def _overview_event(overview: Overview) -> bytes:
    return b"event: overview\ndata: %b\n\n" % encode(overview_view(overview))
