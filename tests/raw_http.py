"""HTTP requests as bytes on a socket, for what a client library does not send."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.system import System

#: as the JDK's client and `curl --http2` send it with their first request
H2C_OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAA")


@contextmanager
def connected(system: System) -> Iterator[socket.socket]:
    """Connect to the API."""
    port = httpx.URL(system.stack.api_url).port or 0
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        yield connection


def raw_post(coupon: int, user: int, *headers: str, version: str = "1.1") -> bytes:
    """Return a request for a coupon with additional headers."""
    body = f'{{"user_id": {user}}}'
    lines = [
        f"POST /coupons/{coupon}/issuances HTTP/{version}",
        "host: localhost",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", body]).encode()


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes the connection; one that it resets has ended as well."""
    chunks = []
    try:
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    except ConnectionResetError:
        pass
    return b"".join(chunks)


def read_response(connection: socket.socket) -> bytes:
    """Read one response with a content length."""
    response = b""
    while b"\r\n\r\n" not in response:
        chunk = connection.recv(1)
        if not chunk:
            return response
        response += chunk
    head = response.lower()
    missing = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while missing and (chunk := connection.recv(missing)):
        response, missing = response + chunk, missing - len(chunk)
    return response


def send_in_segments(system: System, connection: socket.socket, *parts: bytes) -> None:
    """Send parts of a request so that the API reads each by itself: between two it answers another request."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number, part in enumerate(parts):
        if number:
            system.http.get("/healthz")
        connection.sendall(part)
