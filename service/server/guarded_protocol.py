"""uvicorn's HTTP/1.1 protocol, with limits for clients that send too much, too slowly or nothing at all.

A request beyond a limit is answered with problem details by this class, before any route sees it:

- 400 what is not HTTP/1.1 (RFC 9112), a request without Host or with several;
- 408 a head or body that does not arrive in time;
- 413 a body that is declared or sent too large, before `100 Continue`;
- 421 a request for a host whose name is not among those of the server;
- 429 too many requests that wait on one connection;
- 431 a line or header that is too long;
- 503 a connection too many.

A connection that is silent, idle, or does not read its responses is closed.
"""

import asyncio
import re
import socket
from collections.abc import Callable, Mapping
from enum import Enum, auto
from math import inf
from typing import Any
from weakref import WeakKeyDictionary

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from service.domain.error_code import ErrorCode
from service.limits import (
    BODY_TIMEOUT_SECONDS,
    HEAD_TIMEOUT_SECONDS,
    IDLE_TIMEOUT_SECONDS,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MAX_PIPELINED,
    MAX_UNREAD_STREAM_BYTES,
    READ_TIMEOUT_SECONDS,
)
from service.log import get_logger
from service.log_events import LogEvent
from service.server.connection_guard import ConnectionGuard
from service.server.responses import Rejection, RenderedResponse, retry_after
from service.server.root_path import RootPaths, application_below, below

#: Seconds for which a connection is read after a rejection. Closed at once, the client would be reset, and could lose
#: the response (RFC 9112, section 9.6).
_LINGER_SECONDS = 1.0
#: Seconds for which an idle connection stays open at shutdown: a request may be on its way.
_DRAIN_SECONDS = 1.0
#: Bytes that a client must read of its responses in READ_TIMEOUT_SECONDS.
_MIN_READ_BYTES = 1_024
#: Bytes of a body with its chunks' framing and its trailers.
_MAX_FRAMED_BYTES = 4 * MAX_BODY_BYTES
_HOST_PORT = re.compile(rb":[0-9]*$")
_OFFER_HEADERS = (b"upgrade", b"http2-settings")
_log = get_logger(__name__)
_guards: "WeakKeyDictionary[ServerState, ConnectionGuard]" = WeakKeyDictionary()


class _Reading(Enum):
    """What the connection is reading."""

    NOTHING = auto()  # no byte of the next request has arrived
    HEAD = auto()
    BODY = auto()
    REST = auto()  # what the client sends after the last request that is answered; it is dropped


class GuardedProtocol(HttpToolsProtocol):
    """One connection. uvicorn's `cycle` is the last request whose head has arrived, and `pipeline` those that wait."""

    #: the names that Host may have, in lower case and without the port; None: any
    host_names: frozenset[str] | None = None
    #: finds the path below which callers reach the server; None: there is none
    root_paths: RootPaths | None = None
    #: seconds for which a connection may be idle after a response while the server is not crowded
    keep_alive_seconds: float = IDLE_TIMEOUT_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        guard = _guards.get(self.server_state)
        if guard is None:
            guard = _guards[self.server_state] = ConnectionGuard(self.connections)  # type: ignore[arg-type]
        self.guard = guard
        self.deadline = inf
        #: when an idle connection ends; before that it is looked at every IDLE_TIMEOUT_SECONDS
        self._idle_until = 0.0
        self._reading = _Reading.NOTHING
        #: the last request that the application was called with; others may wait behind it
        self._started: RequestResponseCycle | None = None
        #: bytes of the present head, of a body's parts, and of a body with its framing
        self._head_bytes = self._body_bytes = self._framed_bytes = 0
        #: the head that is being parsed may be longer than the limit, so that its bytes must be counted
        self._may_be_long = False
        #: the head that is being parsed offers another protocol
        self._offers_upgrade = False
        #: the last response, once all requests are answered
        self._rejection: Rejection | None = None
        self._draining = False
        self._has_stopped_sending = False
        #: bytes that the client had not read at the last deadline
        self._unread_bytes = 0
        #: called when the client of a stream closes the connection
        self._on_gone: Callable[[], object] = lambda: None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request, or refuse the connection."""
        super().connection_made(transport)
        if self.guard.admits_another():
            self.deadline = self.guard.now + HEAD_TIMEOUT_SECONDS
            return
        detail = "The server has too many connections. Try again after the time in Retry-After."
        self._stop_reading(Rejection(ErrorCode.UNAVAILABLE, detail, retry_after(1, 3)))

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; requests begin in the parser's callbacks."""
        try:
            for first in range(0, len(data), MAX_HEAD_BYTES):  # so that no head grows far beyond the limit unseen
                if self._reading is _Reading.REST:
                    return
                self._parse(data[first : first + MAX_HEAD_BYTES] if len(data) > MAX_HEAD_BYTES else data)
        except Rejection as rejection:
            self._stop_reading(rejection)
        except httptools.HttpParserError as error:
            cause = error.__context__
            if cause is None or isinstance(cause, httptools.HttpParserError):
                cause = Rejection(ErrorCode.BAD_REQUEST, f"The request is not valid HTTP/1.1: {error}")
            elif not isinstance(cause, Rejection):
                _log.error(LogEvent.UNHANDLED_EXCEPTION, exc_info=cause)
                cause = Rejection(ErrorCode.INTERNAL)
            self._stop_reading(cause)

    def _parse(self, data: bytes) -> None:
        """Feed the parser; raise Rejection if a head or a body's framing becomes too long.

        A request that offers another protocol (RFC 9110, section 7.8) is read without the offer. The parser takes the
        end of such a head for the end of HTTP/1.1, and what follows, the body, for another protocol. So another parser
        reads the head once more without the offer, and the body after it.
        """
        before = self._reading
        self._may_be_long = before is _Reading.HEAD or len(data) >= MAX_HEAD_BYTES
        unparsed = data
        while unparsed:
            try:
                self.parser.feed_data(unparsed)
            except httptools.HttpParserUpgrade as end_of_head:
                self._offers_upgrade = False
                unparsed = self._head_without_offer() + unparsed[end_of_head.args[0] :]
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            else:
                break
        if self._reading is _Reading.HEAD and before is _Reading.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise Rejection(ErrorCode.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._reading is _Reading.BODY and before is _Reading.BODY:
            self._framed_bytes += len(data)
            if self._framed_bytes > _MAX_FRAMED_BYTES:
                raise Rejection(ErrorCode.REQUEST_ENTITY_TOO_LARGE)

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [token.strip() for token in value.split(b",")]
                kept = b", ".join(token for token in tokens if token.lower() not in _OFFER_HEADERS)
                lines.append(b"connection: %b" % kept)
            elif name not in _OFFER_HEADERS:
                lines.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """Begin to count: called at the first byte of a request."""
        self._reading = _Reading.HEAD
        self.deadline = self.guard.now + HEAD_TIMEOUT_SECONDS
        self._head_bytes = self._body_bytes = self._framed_bytes = 0
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A trailer is dropped: no route knows one (RFC 9110, section 6.5.1)."""
        if self._reading is _Reading.HEAD:
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Check the head, then begin the request."""
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._offers_upgrade = True
            return
        fields = dict(self.headers)
        self._check_head(fields)
        self.begin_request(fields)
        if self._draining or self.guard.crowded:
            self.cycle.keep_alive = False
        self._reading = _Reading.BODY
        self.deadline = self.guard.now + BODY_TIMEOUT_SECONDS

    def _check_head(self, fields: dict[bytes, bytes]) -> None:
        """Raise Rejection if the head is beyond a limit, or does not name this server."""
        if self._may_be_long:
            head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if head_bytes > MAX_HEAD_BYTES:
                raise Rejection(ErrorCode.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if self.parser.get_method() == b"CONNECT":
            raise Rejection(ErrorCode.NOT_IMPLEMENTED)
        self._check_host(fields)
        if int(fields.get(b"content-length", b"0")) > MAX_BODY_BYTES:
            raise Rejection(ErrorCode.REQUEST_ENTITY_TOO_LARGE)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Rejection(ErrorCode.TOO_MANY_REQUESTS)

    def _check_host(self, fields: dict[bytes, bytes]) -> None:
        """Raise Rejection if the head names not one host (RFC 9112, section 3.2), or another one than this server.

        A page of another site can give a name of its own this address (DNS rebinding). It cannot change the header.
        """
        if b"host" not in fields or len(fields) < len(self.headers):
            hosts = sum(name == b"host" for name, _ in self.headers)
            if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
                raise Rejection(ErrorCode.BAD_REQUEST, "A request in HTTP/1.1 must have one Host header.")
        names = self.host_names
        if names is not None and _HOST_PORT.sub(b"", fields.get(b"host", b"")).decode("latin-1").lower() not in names:
            raise Rejection(ErrorCode.MISDIRECTED_REQUEST)

    def begin_request(self, fields: dict[bytes, bytes]) -> None:
        """Make the request whose head is complete the `cycle`, and start the application.

        fields: the headers; of a repeated one the last.
        """
        url, headers = self.url, self.headers
        self.root_path = self.find_root_path(fields)
        super().on_message_begin()
        self.url = url
        self.headers = self.scope["headers"] = headers
        self.scope["state"].update(
            has_stopped_sending=self.has_stopped_sending,
            is_draining=self.is_draining,
            abort=self.transport.abort,
            begin_stream=self.begin_stream,
        )
        self.expect_100_continue = fields.get(b"expect", b"").lower() == b"100-continue"
        super().on_headers_complete()

    def find_root_path(self, fields: Mapping[bytes, bytes]) -> str:
        """Return the path below which the caller of a request with these headers reaches the server."""
        return "" if self.root_paths is None else self.root_paths.find(self.client, fields)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._started = cycle
        if root_path := cycle.scope["root_path"]:
            app = application_below(app, root_path)
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            raise Rejection(ErrorCode.REQUEST_ENTITY_TOO_LARGE)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        if self._offers_upgrade:
            return
        self._reading = _Reading.NOTHING
        self.deadline = inf
        super().on_message_complete()
        if self.cycle.response_complete:  # the response did not wait for the body
            self._become_idle()
        else:
            self.end_request()

    def end_request(self) -> None:
        """Act on the end of the `cycle`: called once, when its body is complete and it has no response."""

    def on_response_complete(self) -> None:
        """Begin the next request that waits, answer what was rejected, or become idle."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self._wait_until_read()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            if self._reading is _Reading.BODY:
                self.deadline = self.guard.now + BODY_TIMEOUT_SECONDS
        elif self._reading is _Reading.REST:
            self._end()
        elif self._reading is _Reading.NOTHING:
            self._become_idle()

    def _become_idle(self) -> None:
        self.deadline = self.guard.now + (_DRAIN_SECONDS if self._draining else IDLE_TIMEOUT_SECONDS)
        self._idle_until = self.guard.now + self.keep_alive_seconds

    def _is_answering(self) -> bool:
        """Return whether a request that has arrived completely has no response yet. One that was dropped gets none."""
        is_whole = self._reading is not _Reading.BODY and self.cycle is not None
        return bool(self.pipeline) or (is_whole and not self.cycle.response_complete and not self.cycle.disconnected)

    def _stop_reading(self, rejection: Rejection | None) -> None:
        """Drop the present request and all that follow; the complete ones are answered before the connection ends.

        rejection: the last response, if any.
        """
        # its traceback would keep what the client has sent for as long as the connection lingers
        self._rejection = rejection and rejection.with_traceback(None)
        is_answering, was_reading = self._is_answering(), self._reading
        self._reading = _Reading.REST
        self.deadline = inf
        if was_reading is _Reading.BODY and is_answering:
            self.pipeline.popleft()
        elif was_reading is _Reading.BODY:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self._rejection = None
        if not is_answering:
            self._end()

    def _end(self) -> None:
        """Send the rejection, if any, and end the connection."""
        if self._rejection is not None:
            response = self.complete_rejection(self._rejection.response(), dict(self.headers or ()))
            self.guard.rejections[response.status] += 1
            self.transport.write(response.to_http1(self.server_state.default_headers, keep_alive=True))
        if self._rejection is None or self._draining or self.guard.is_full:
            self.transport.close()
            self._wait_until_read()
            return
        self.deadline = self.guard.now + _LINGER_SECONDS
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def complete_rejection(self, response: RenderedResponse, fields: Mapping[bytes, bytes]) -> RenderedResponse:
        """Return a rejection as it is sent; `fields` are the headers of its request that have arrived."""
        return below(response, self.find_root_path(fields))

    def _wait_until_read(self) -> None:
        """Give the client some seconds to read a part of its responses."""
        self.deadline = self.guard.now + READ_TIMEOUT_SECONDS
        self._unread_bytes = self.transport.get_write_buffer_size()

    def on_deadline(self) -> None:
        """Reject a request that does not arrive; close a connection that is silent, idle, or does not read."""
        unread = self.transport.get_write_buffer_size()
        if unread and not self._draining and unread + _MIN_READ_BYTES <= self._unread_bytes:
            self._wait_until_read()
        elif unread or (self._reading is _Reading.REST and not self._is_answering()):
            self.transport.abort()
        elif self._is_answering():  # the parser waits for the response to an earlier request
            self.deadline = self.guard.now + HEAD_TIMEOUT_SECONDS
        elif self._reading is _Reading.HEAD:
            detail = f"The request line and headers must arrive within {HEAD_TIMEOUT_SECONDS:g} seconds."
            self._stop_reading(Rejection(ErrorCode.REQUEST_TIMEOUT, detail))
        elif self._reading is _Reading.BODY:
            detail = f"The body must arrive within {BODY_TIMEOUT_SECONDS:g} seconds."
            self._stop_reading(Rejection(ErrorCode.REQUEST_TIMEOUT, detail))
        elif self.guard.now < self._idle_until and not self.guard.crowded and not self._draining:
            self.deadline = min(self._idle_until, self.guard.now + IDLE_TIMEOUT_SECONDS)
        else:
            self._stop_reading(None)

    def pause_writing(self) -> None:
        """Limit the time for which the client reads nothing."""
        super().pause_writing()
        self._wait_until_read()

    def resume_writing(self) -> None:
        """Wait for what the connection waited for before."""
        super().resume_writing()
        if self._reading is _Reading.NOTHING and not self._is_answering():
            self._become_idle()
        else:
            self.deadline = inf if self._is_answering() else self.guard.now + BODY_TIMEOUT_SECONDS

    def begin_stream(self, on_gone: Callable[[], object]) -> None:
        """Prepare for a response that may take hours: `on_gone` is called when the client closes the connection.

        A client that does not read is noticed when the buffers are full. They become small, so that this takes minutes
        and not hours, and then it has READ_TIMEOUT_SECONDS, as for every response. The connection must end with the
        response, because the buffers stay small.
        """
        self._on_gone = on_gone
        stream = self.transport.get_extra_info("socket")
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_UNREAD_STREAM_BYTES)
        self.transport.set_write_buffer_limits(high=0)
        if self._has_stopped_sending or self.transport.is_closing():
            on_gone()

    def has_stopped_sending(self) -> bool:
        """Return whether the client has closed the connection, or its sending side."""
        return self._has_stopped_sending

    def is_draining(self) -> bool:
        """Return whether the server shuts down, so that a response without an end must end."""
        return self._draining

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer the requests of a client that has only stopped sending, before the connection ends."""
        self._has_stopped_sending = True
        self._on_gone()
        is_answering = self._is_answering()
        if is_answering and self._reading is not _Reading.BODY and self._rejection is None:
            self.cycle.keep_alive = False
        if self._reading is not _Reading.REST:
            self._stop_reading(None)
        return is_answering

    def connection_lost(self, exc: Exception | None) -> None:
        """End what the client waited for. uvicorn ends the `cycle` only, which may wait behind the one in progress."""
        super().connection_lost(exc)
        if self._started is not None and not self._started.response_complete:
            self._started.disconnected = True
            self._started.message_event.set()
        self._on_gone()

    def shutdown(self) -> None:
        """Close after the present response. An idle connection stays open for a moment: a request may be on its way."""
        self._draining = True
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            self.deadline = min(self.deadline, self.guard.now + _DRAIN_SECONDS)
