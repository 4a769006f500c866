"""A TCP proxy on loopback that forwards, delays, holds, resets and refuses traffic, and counts what it did."""

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from random import Random
from typing import Any, NamedTuple, Self, TypeVar

from stack.server_env import LOOPBACK

_CHUNK = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
Result = TypeVar("Result")


class Direction(Enum):
    """The two directions of a connection."""

    TO_SERVER = "from client to server"
    TO_CLIENT = "from server to client"


class Delay(NamedTuple):
    """Latency of each chunk in seconds, plus or minus the jitter."""

    seconds: float = 0.0
    jitter: float = 0.0


class LostResponse(NamedTuple):
    """The response to drop: to a chunk that contains `to`, on a connection that has sent `after` before or in it."""

    to: bytes
    after: bytes


class _Link:
    """A client's connection and its counterpart to the server."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket()
        self.server.setblocking(False)
        self.task: asyncio.Task[None] | None = None
        #: has sent the `after` of a LostResponse
        self.matched_after = False
        #: the next response is dropped
        self.drops_response = False

    def sockets(self, direction: Direction) -> tuple[socket.socket, socket.socket]:
        """Return the source and the destination."""
        return (self.client, self.server) if direction is Direction.TO_SERVER else (self.server, self.client)

    def reset(self) -> None:
        """End both connections with a RST; unread data is lost."""
        for endpoint in (self.client, self.server):
            with suppress(OSError):
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            endpoint.close()


class Proxy:
    """Proxy one server; its behaviour can change at any time and applies to open connections too."""

    def __init__(self, port: int, upstream_port: int) -> None:
        self.port = port
        #: chunks that were forwarded, delayed or held, connections that were reset, responses that were dropped
        self.counts: Counter[str] = Counter()
        self._upstream = (LOOPBACK, upstream_port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {port}", daemon=True)
        self._links: set[_Link] = set()
        self._flowing = {direction: asyncio.Event() for direction in Direction}
        self._delay = Delay()
        self._random = Random(port)
        self._resets_all = False
        self._lost_response: LostResponse | None = None
        self._listening: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        for flowing in self._flowing.values():
            flowing.set()
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._run(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def delaying(self, seconds: float, jitter: float = 0.0) -> Iterator[None]:
        """Delay each chunk in both directions."""
        self._delay = Delay(seconds, jitter)
        try:
            yield
        finally:
            self._delay = Delay()

    @contextmanager
    def black_hole(self, *directions: Direction) -> Iterator[None]:
        """Hold all data without an error, in both directions by default; it arrives late if the connection survives."""
        directions = directions or tuple(Direction)
        self._run(self._set_flowing(directions, flowing=False))
        try:
            yield
        finally:
            self._run(self._set_flowing(directions, flowing=True))

    @contextmanager
    def resetting(self) -> Iterator[None]:
        """Reset every connection, and each new one."""
        self._resets_all = True
        self.reset_all()
        try:
            yield
        finally:
            self._resets_all = False

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Stop listening, and reset every connection."""
        self._run(self._refuse())
        try:
            yield
        finally:
            self._run(self._listen())

    def reset_all(self) -> None:
        """Reset every connection that is open now."""
        self._run(self._reset(set(self._links)))

    def redirect(self, upstream_port: int) -> None:
        """Send new connections to another server, as an address that fails over does; open ones stay where they are."""
        self._upstream = (LOOPBACK, upstream_port)

    def drop_response(self, to: bytes, after: bytes) -> None:
        """Forward one statement, wait for the server's response, and reset the client instead of forwarding it.

        The server has executed the statement, and the client cannot know that. It applies once, to the first chunk
        that contains `to` on a connection that has sent `after`.
        """
        self._lost_response = LostResponse(to, after)

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _set_flowing(self, directions: tuple[Direction, ...], *, flowing: bool) -> None:
        for direction in directions:
            (self._flowing[direction].set if flowing else self._flowing[direction].clear)()

    async def _listen(self) -> None:
        listener = socket.create_server((LOOPBACK, self.port))
        listener.setblocking(False)
        self._listening = self._loop.create_task(self._accept(listener))

    async def _refuse(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._reset(set(self._links))

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = await self._loop.sock_accept(listener)
                link = _Link(client)
                self._links.add(link)
                link.task = self._loop.create_task(self._forward(link))

    async def _reset(self, links: set[_Link]) -> None:
        tasks = [link.task for link in links if link.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.counts["reset"] += len(tasks)

    async def _forward(self, link: _Link) -> None:
        """Forward data until both ends have closed the connection or it is reset."""
        try:
            if self._resets_all:
                raise ConnectionResetError
            await self._flowing[Direction.TO_SERVER].wait()
            await self._loop.sock_connect(link.server, self._upstream)
            async with asyncio.TaskGroup() as group:
                for direction in Direction:
                    group.create_task(self._forward_one_way(link, direction))
            link.client.close()
            link.server.close()
        except* OSError:
            self.counts["reset"] += 1
        finally:
            self._links.discard(link)
            link.reset()

    async def _forward_one_way(self, link: _Link, direction: Direction) -> None:
        source, destination = link.sockets(direction)
        while chunk := await self._loop.sock_recv(source, _CHUNK):
            self._match_lost_response(link, direction, chunk)
            await self._wait(direction)
            await self._loop.sock_sendall(destination, chunk)
            self.counts["forwarded"] += 1
        with suppress(OSError):
            destination.shutdown(socket.SHUT_WR)

    async def _wait(self, direction: Direction) -> None:
        if self._delay.seconds:
            self.counts["delayed"] += 1
            await asyncio.sleep(self._delay.seconds + self._random.uniform(-1, 1) * self._delay.jitter)
        if not self._flowing[direction].is_set():
            self.counts["held"] += 1
            await self._flowing[direction].wait()

    def _match_lost_response(self, link: _Link, direction: Direction, chunk: bytes) -> None:
        """Find the statement whose response is to be dropped; raise ConnectionResetError at that response."""
        if link.drops_response:
            self.counts["responses dropped"] += 1
            raise ConnectionResetError
        if self._lost_response is None or direction is Direction.TO_CLIENT:
            return
        link.matched_after = link.matched_after or self._lost_response.after in chunk
        if link.matched_after and self._lost_response.to in chunk:
            link.drops_response, self._lost_response = True, None
