"""A keep-alive HTTP/1.1 connection with one request under way; it reads no more of an answer than it must."""

import asyncio
from collections.abc import Callable
from typing import cast

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_STATUS = slice(9, 12)


class BadAnswer(Exception):
    """What came back is no answer this client can read, or the connection was lost."""


class Connection(asyncio.Protocol):
    """Calls `answered` with itself and the status of each answer, `failed` with an error that ends it."""

    def __init__(self, answered: Callable[["Connection", int], None], failed: Callable[[Exception], None]) -> None:
        self._answered = answered
        self._failed = failed
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        #: the number of the request under way
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, number: int, request: bytes) -> None:
        """Sends the request of this number; the one before it has been answered."""
        assert self._transport
        self.number = number
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        if len(self._buffer) < end + len(_HEAD_END) + _content_length(head):
            return
        self._buffer = b""
        self._answered(self, int(head[_STATUS]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._failed(exc or BadAnswer("the server closed the connection"))

    def close(self) -> None:
        """Ends the connection; nobody is told."""
        self._failed = _unheard
        if self._transport:
            self._transport.close()


def _content_length(head: bytes) -> int:
    at = head.find(_LENGTH)
    if at < 0:
        return 0
    return int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0])


def _unheard(_: Exception) -> None:
    """For a connection that is meant to end."""
