"""Open dashboards: connections that receive the overview, as browsers do."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_REQUEST = b"GET /dashboard/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
_TIMEOUT_SECONDS = 10.0


@contextmanager
def open_dashboards(port: int, count: int) -> Iterator[None]:
    """Keep so many dashboards open while the block runs; raise AssertionError if one received no overview.

    The events wait in the socket's buffer: reading them is the browser's work, not the service's.
    """
    with ExitStack() as opened:
        connections = [
            opened.enter_context(socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS)) for _ in range(count)
        ]
        for connection in connections:
            connection.sendall(_REQUEST)
        yield
        for connection in connections:
            received = b""
            while b"event: overview" not in received:
                part = connection.recv(65_536)
                assert part, f"a dashboard received no overview: {received[:200]!r}"
                received += part
