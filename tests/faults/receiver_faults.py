"""Faults of a webhook receiver: each function responds wrongly to a POST that the receiver has counted."""

import socket
import struct
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

#: longer than a sender may wait for the whole response
_HANG_SECONDS = 6.0
#: just within that time
_SLOW_SECONDS = 1.9
_DRIBBLE_EVERY_SECONDS = 0.2


def error(handler: BaseHTTPRequestHandler) -> None:
    """Respond 500."""
    _respond(handler, 500)


def too_many(handler: BaseHTTPRequestHandler) -> None:
    """Respond 429 with Retry-After: 2."""
    _respond(handler, 429, ("Retry-After", "2"))


def redirect(handler: BaseHTTPRequestHandler) -> None:
    """Redirect with 307; a sender that follows would deliver the same notices again."""
    _respond(handler, 307, ("Location", "/elsewhere"))


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Send nothing, then close the connection."""
    time.sleep(_HANG_SECONDS)
    handler.close_connection = True


def slow(handler: BaseHTTPRequestHandler) -> None:
    """Respond 200 shortly before the sender's timeout."""
    time.sleep(_SLOW_SECONDS)
    with suppress(OSError):
        _respond(handler, 200)


def dribble(handler: BaseHTTPRequestHandler) -> None:
    """Respond 200 with a body that arrives one byte at a time and does not end in time."""
    handler.close_connection = True
    ends = time.monotonic() + _HANG_SECONDS
    with suppress(OSError):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while time.monotonic() < ends:
            handler.wfile.write(b".")
            time.sleep(_DRIBBLE_EVERY_SECONDS)


def half(handler: BaseHTTPRequestHandler) -> None:
    """Respond 200 with headers, and close the connection before the body."""
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection without a response."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _respond(handler: BaseHTTPRequestHandler, status: int, *headers: tuple[str, str]) -> None:
    handler.send_response(status)
    for name, value in (*headers, ("Content-Length", "0")):
        handler.send_header(name, value)
    handler.end_headers()
