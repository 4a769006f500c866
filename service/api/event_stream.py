"""The response that streams what becomes of a request, as server-sent events."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.api.schemas.issuances import issuance_view, progress_view
from service.clock import jitter
from service.domain.error_code import ErrorCode
from service.domain.request import FINAL_STATES
from service.metrics import STREAM_EVENTS
from service.server.responses import encode, problem_response
from service.server.root_path import below
from service.usecases.issuance_events import IssuanceEvents
from service.usecases.lookup import RequestStatus
from service.usecases.progress_watch import IssuanceStatus, PartitionProgress
from service.usecases.stream_listener import Listener, News, StreamEnd

EVENT_STREAM = "text/event-stream"
#: `no-transform`: a proxy that compresses would hold events back. The connection ends with the stream, because the
#: server shrinks its buffers
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"connection", b"close"),
]
_HEARTBEAT = b":\n\n"
#: a client connects again after so many milliseconds, at least and at most, so that all do not come back together
_MIN_RETRY_MS, _MAX_RETRY_MS = 1_000, 5_000
_COUNTERS = {
    name: STREAM_EVENTS.labels(name) for name in ("state", "progress", "final", "unknown", "retry", "heartbeat")
}


class OpenStream(NamedTuple):
    """A stream that is counted."""

    #: called when the client goes
    end: Callable[[], object]
    #: sends all events, the last part of the body included
    send_events: Callable[[Send], Awaitable[None]]


class EventStream(Response):
    """A stream of events. It writes to ASGI itself: a framework's task and queue for each would cost more.

    What may refuse the stream, TooManyStreams included, is raised before the first byte: a browser takes any status but
    200 as the end.
    """

    media_type = EVENT_STREAM

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Send events until the end; the stream is counted for exactly this call.

        After the response to HEAD the connection ends, and with it the stream.
        """
        with self.open() as (end, send_events):
            scope["state"]["begin_stream"](end)
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send_events(send)

    def open(self) -> AbstractContextManager[OpenStream]:
        """Open the stream for the block; raise TooManyStreams."""
        raise NotImplementedError


class IssuanceEventStream(EventStream):
    """A stream for one listener to a request."""

    def __init__(self, events: IssuanceEvents, status: IssuanceStatus, max_seconds: float, root_path: str) -> None:
        """`max_seconds`: how long the caller's credentials are valid. `root_path`: below which it reaches the API."""
        super().__init__()
        self._events = events
        self._status = status
        self._max_seconds = max_seconds
        self._root_path = root_path

    @contextmanager
    def open(self) -> Iterator[OpenStream]:
        """Listen to the request for the block; raise TooManyStreams."""
        with self._events.listen(self._status, self._max_seconds) as listener:
            yield OpenStream(partial(listener.end, StreamEnd.GONE), partial(_send_news, listener, self._root_path))


async def _send_news(listener: Listener, root_path: str, send: Send) -> None:
    """Send the listener's news, the time after which to connect again first. A slow client delays only itself."""
    begin = retry_event()
    while True:
        news = await listener.next()
        more_body = news.end is None
        await send({"type": "http.response.body", "body": begin + _render(news, root_path), "more_body": more_body})
        if not more_body:
            return
        begin = b""


def _render(news: News, root_path: str) -> bytes:
    """Return the events. A single one is not copied: all listeners of a partition send the same bytes."""
    events = []
    if news.status is not None:
        events.append(_status_event(news.status))
    if news.end is StreamEnd.UNKNOWN:
        body = below(problem_response(ErrorCode.UNKNOWN_REQUEST), root_path).body
        events.append(_event("unknown", body))
    elif news.end is StreamEnd.CLOSED:
        events.append(_counted("retry", retry_event()))
    elif news.end is None and news.progress is not None:
        events.append(_counted("progress", progress_event(news.progress)))
    return b"".join(events) if events or news.end else _counted("heartbeat", _HEARTBEAT)


@lru_cache(maxsize=256)
def progress_event(progress: PartitionProgress) -> bytes:
    """Return the event about a partition's progress: encoded once, the same bytes for all its listeners."""
    data = encode(progress_view(progress))
    return b"event: progress\nid: %d\ndata: %b\n\n" % (progress.next_offset, data)


def final_event_id(request: RequestStatus) -> str | None:
    """Return the id of the event about a final state, another one for each decision; None while it is not final."""
    return f"{request.state}-{request.decided_at_ms}" if request.state in FINAL_STATES else None


def _status_event(status: IssuanceStatus) -> bytes:
    data, final_id = encode(issuance_view(status)), final_event_id(status.request)
    return _event("state", data) if final_id is None else _event("final", data, b"id: %b\n" % final_id.encode())


def _event(name: str, data: bytes, id_line: bytes = b"") -> bytes:
    return _counted(name, b"event: %b\n%bdata: %b\n\n" % (name.encode(), id_line, data))


def retry_event() -> bytes:
    """Return the time after which a client connects again, another one for each."""
    return b"retry: %d\n\n" % (_MIN_RETRY_MS + jitter() * (_MAX_RETRY_MS - _MIN_RETRY_MS))


def _counted(name: str, event: bytes) -> bytes:
    _COUNTERS[name].inc()
    return event
