"""How a receiver of notices may misbehave, once it has taken a POST in."""

import socket
import struct
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

_LONG_SECONDS = 6.0
_SLOW_SECONDS = 1.9
_DRIP_SECONDS = 0.2


def error(handler: BaseHTTPRequestHandler) -> None:
    """500."""
    _answer(handler, 500)


def too_many(handler: BaseHTTPRequestHandler) -> None:
    """429, come again in two seconds."""
    _answer(handler, 429, ("Retry-After", "2"))


def redirect(handler: BaseHTTPRequestHandler) -> None:
    """307 to somewhere else, where it would be taken for another POST."""
    _answer(handler, 307, ("Location", "/elsewhere"))


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Says nothing for long."""
    time.sleep(_LONG_SECONDS)
    handler.close_connection = True


def slow(handler: BaseHTTPRequestHandler) -> None:
    """200, almost too late."""
    time.sleep(_SLOW_SECONDS)
    with suppress(OSError):
        _answer(handler, 200)


def dribble(handler: BaseHTTPRequestHandler) -> None:
    """200, and then a body that never ends, a byte at a time."""
    handler.close_connection = True
    ends = time.monotonic() + _LONG_SECONDS
    with suppress(OSError):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while time.monotonic() < ends:
            handler.wfile.write(b".")
            time.sleep(_DRIP_SECONDS)


def half(handler: BaseHTTPRequestHandler) -> None:
    """200, headers, and the connection is closed before the body."""
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("Content-Length", "10")
    handler.end_headers()


def reset(handler: BaseHTTPRequestHandler) -> None:
    """A reset instead of an answer."""
    handler.close_connection = True
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def _answer(handler: BaseHTTPRequestHandler, status: int, *headers: tuple[str, str]) -> None:
    handler.send_response(status)
    for name, value in (*headers, ("Content-Length", "0")):
        handler.send_header(name, value)
    handler.end_headers()
