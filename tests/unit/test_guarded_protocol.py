"""The limits of the HTTP server that need many connections or its shutdown, on a server with a trivial application."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any, cast

import pytest

from service.log_events import LogEvent
from service.server import connection_guard, guarded_protocol
from service.server.guarded_protocol import GuardedProtocol
from tests.server_thread import ServerThread
from tests.waiting import eventually

_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Server(ServerThread):
    """A server of a trivial application."""

    def __init__(self, application: Any = _answer) -> None:
        super().__init__(application, GuardedProtocol, lifespan="off")

    def connect(self) -> socket.socket:
        """Return a connection that the server has taken."""
        connection = socket.create_connection(self.address, timeout=10)
        eventually(lambda: any(each.client == connection.getsockname() for each in self.connections()))
        return connection

    def connections(self) -> list[GuardedProtocol]:
        """Return the server's side of its connections."""
        return cast(list[GuardedProtocol], list(self.uvicorn.server_state.connections))


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that is stopped at the end."""
    server = Server()
    server.start()
    eventually(lambda: server.uvicorn.started)
    yield server
    server.stop()


def _ask(connection: socket.socket) -> bytes:
    connection.sendall(_GET)
    response = b""
    while not response.endswith(b"ok"):
        chunk = connection.recv(4096)
        if not chunk:
            break
        response += chunk
    return response


def test_a_connection_over_the_limit_is_refused(
    monkeypatch: pytest.MonkeyPatch, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """503 at once, told in the log; when another connection has ended, there is room again."""
    monkeypatch.setattr(connection_guard, "MAX_CONNECTIONS", 5)
    with ExitStack() as stack:
        opened = [stack.enter_context(server.connect()) for _ in range(5)]
        refused = stack.enter_context(socket.create_connection(opened[0].getpeername(), timeout=10))
        response = refused.recv(4096)

        assert response.startswith(b"HTTP/1.1 503 ")
        assert b"application/problem+json" in response
        eventually(lambda: LogEvent.REQUESTS_REJECTED in caplog.text)
        opened.pop().close()
        eventually(lambda: len(server.connections()) < 5)
        assert _ask(stack.enter_context(server.connect())).startswith(b"HTTP/1.1 200 ")


def test_a_crowded_server_keeps_no_connection_idle(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """Above four fifths of the limit a response ends its connection."""
    monkeypatch.setattr(connection_guard, "MAX_CONNECTIONS", 10)
    with ExitStack() as stack:
        opened = [stack.enter_context(server.connect()) for _ in range(9)]
        guard = server.connections()[0].guard
        eventually(lambda: guard.crowded)

        assert b"connection: close" in _ask(opened[0])


def test_an_idle_connection_is_kept_for_as_long_as_is_set(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """A load balancer sends its next request on a connection that it has kept for a shorter time."""
    monkeypatch.setattr(guarded_protocol, "IDLE_TIMEOUT_SECONDS", 0.25)
    monkeypatch.setattr(GuardedProtocol, "keep_alive_seconds", 3.0)
    with server.connect() as connection:
        (protocol,) = server.connections()
        _ask(connection)
        first_deadline = protocol.deadline
        eventually(lambda: protocol.deadline > first_deadline)

        assert _ask(connection).startswith(b"HTTP/1.1 200 ")
        answered_at = time.monotonic()
        assert connection.recv(4096) == b""
        assert time.monotonic() - answered_at > 2.0


def test_a_server_that_becomes_crowded_ends_idle_connections(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    """However long it would keep them otherwise: those who only keep connections take none from others."""
    monkeypatch.setattr(connection_guard, "MAX_CONNECTIONS", 10)
    monkeypatch.setattr(guarded_protocol, "IDLE_TIMEOUT_SECONDS", 0.25)
    monkeypatch.setattr(GuardedProtocol, "keep_alive_seconds", 3_600.0)
    with ExitStack() as stack:
        opened = [stack.enter_context(server.connect()) for _ in range(8)]
        for connection in opened:
            assert b"connection: close" not in _ask(connection)
        stack.enter_context(server.connect())

        assert opened[0].recv(4096) == b""


def test_a_request_that_is_on_its_way_at_shutdown_is_answered(server: Server) -> None:
    """An idle connection takes one more request, whose response ends it."""
    with server.connect() as idle, server.connect() as silent:
        assert b"connection: close" not in _ask(idle)
        server.uvicorn.should_exit = True
        eventually(lambda: not server.uvicorn.servers[0].is_serving())

        responses = [_ask(idle), _ask(silent)]

    assert all(response.startswith(b"HTTP/1.1 200 ") and b"connection: close" in response for response in responses)


def test_deadlines_are_swept_only_while_there_are_connections(server: Server) -> None:
    """A server that nobody uses does nothing."""
    with server.connect():
        guard = server.connections()[0].guard
        assert guard._timer is not None

    eventually(lambda: guard._timer is None)


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nX: " + 40_000 * b"a", b"nonsense\r\n\r\n"], ids=["long", "malformed"]
)
def test_a_rejection_does_not_keep_what_was_sent(server: Server, sent: bytes) -> None:
    """A hostile connection costs some kilobytes while it lingers, not the bytes that it has sent."""
    with server.connect() as connection:
        (protocol,) = server.connections()
        connection.sendall(sent)
        assert connection.recv(4096)[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 431")

        rejection = protocol._rejection
        assert rejection is not None
        assert (rejection.__traceback__, rejection.__context__) == (None, None)


class Stream:
    """An application that streams: bytes again and again, or a word after some time."""

    def __init__(self, chunk: bytes, silent_seconds: float) -> None:
        self._chunk = chunk
        self._silent_seconds = silent_seconds
        self.sent = 0
        self.is_running = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Stream until the client is gone."""
        del receive
        gone = asyncio.Event()
        scope["state"]["begin_stream"](gone.set)
        self.is_running = True
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        while not gone.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(gone.wait(), self._silent_seconds)
            await send({"type": "http.response.body", "body": self._chunk, "more_body": True})
            self.sent += len(self._chunk)
        await send({"type": "http.response.body"})
        self.is_running = False


@pytest.fixture
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client has a quarter of a second for everything."""
    for name in ("HEAD", "BODY", "IDLE", "READ"):
        monkeypatch.setattr(guarded_protocol, f"{name}_TIMEOUT_SECONDS", 0.25)


@pytest.mark.usefixtures("short_timeouts")
def test_a_silent_stream_is_kept_and_ends_with_its_client() -> None:
    """No timeout of the server applies to a client that only waits; when it leaves, the application ends at once."""
    stream = Stream(b"ok", silent_seconds=1.5)
    server = Server(stream)
    server.start()
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(_GET)
        response = b""
        while b"ok" not in response:
            response += connection.recv(4096)
    eventually(lambda: not stream.is_running, within_seconds=1)
    server.stop()

    assert stream.sent == 2 * len(b"ok")


@pytest.mark.usefixtures("short_timeouts")
def test_a_stream_that_is_not_read_ends() -> None:
    """Little is kept for such a client, and then it has as long as for any response."""
    stream = Stream(100 * b"x", silent_seconds=0)
    server = Server(stream)
    server.start()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(server.address)
        connection.sendall(_GET)
        eventually(lambda: stream.sent and not stream.is_running, within_seconds=5)
    server.stop()

    assert stream.sent < 70_000
