"""A TCP proxy on loopback that passes, delays, holds, cuts and refuses, and counts what it did."""

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

from stack.parts.surroundings import LOOPBACK

_CHUNK = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
Result = TypeVar("Result")


class Way(Enum):
    """The two directions of a link."""

    THERE = "from client to server"
    BACK = "from server to client"


class Delay(NamedTuple):
    """Seconds that every piece waits, give or take the jitter."""

    seconds: float = 0.0
    jitter: float = 0.0


class Answer(NamedTuple):
    """The answer to a statement that ends with `to`, on a connection that said `after` before."""

    to: bytes
    after: bytes


class _Link:
    """A client's connection and the one made for it to the server."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket()
        self.server.setblocking(False)
        self.task: asyncio.Task[None] | None = None
        self.marked = False
        self.doomed = False

    def ends(self, way: Way) -> tuple[socket.socket, socket.socket]:
        """Where bytes come from and where they go."""
        return (self.client, self.server) if way is Way.THERE else (self.server, self.client)

    def reset(self) -> None:
        """Ends both connections with a RST; what was not read yet is lost."""
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            end.close()


class Proxy:
    """Stands before one server; what it does to its links may change at any moment."""

    def __init__(self, port: int, upstream_port: int) -> None:
        self.port = port
        #: what it did, by word: passed, delayed, held, cut
        self.felt: Counter[str] = Counter()
        self._upstream = (LOOPBACK, upstream_port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {port}", daemon=True)
        self._links: set[_Link] = set()
        self._open = {way: asyncio.Event() for way in Way}
        self._delay = Delay()
        self._random = Random(port)
        self._cuts_all = False
        self._unanswered: Answer | None = None
        self._listening: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        for way in self._open.values():
            way.set()
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._do(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextmanager
    def delaying(self, seconds: float, jitter: float = 0.0) -> Iterator[None]:
        """Latency: every piece in either direction waits."""
        self._delay = Delay(seconds, jitter)
        try:
            yield
        finally:
            self._delay = Delay()

    @contextmanager
    def holding(self, *ways: Way) -> Iterator[None]:
        """A black hole: nothing gets through, nobody is told, and it arrives late if the connection still lives."""
        ways = ways or tuple(Way)
        self._do(self._switch(ways, flowing=False))
        try:
            yield
        finally:
            self._do(self._switch(ways, flowing=True))

    @contextmanager
    def cutting(self) -> Iterator[None]:
        """Every connection is reset, and each new one too."""
        self._cuts_all = True
        self.cut()
        try:
            yield
        finally:
            self._cuts_all = False

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens."""
        self._do(self._refuse())
        try:
            yield
        finally:
            self._do(self._listen())

    def cut(self) -> None:
        """Resets what is connected now."""
        self._do(self._cut(set(self._links)))

    def cut_answer(self, to: bytes, after: bytes) -> None:
        """Once: lets the statement through, waits for the server's answer, and resets the client instead of giving it.

        So the server has done it and the client cannot know.
        """
        self._unanswered = Answer(to, after)

    def _do(self, task: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(10)

    async def _switch(self, ways: tuple[Way, ...], *, flowing: bool) -> None:
        for way in ways:
            (self._open[way].set if flowing else self._open[way].clear)()

    async def _listen(self) -> None:
        listener = socket.create_server((LOOPBACK, self.port))
        listener.setblocking(False)
        self._listening = self._loop.create_task(self._accept(listener))

    async def _refuse(self) -> None:
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._cut(set(self._links))

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = await self._loop.sock_accept(listener)
                link = _Link(client)
                self._links.add(link)
                link.task = self._loop.create_task(self._carry(link))

    async def _cut(self, links: set[_Link]) -> None:
        tasks = [link.task for link in links if link.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.felt["cut"] += len(tasks)

    async def _carry(self, link: _Link) -> None:
        """Carries a link's bytes until both ends have ended it, or somebody resets it."""
        try:
            if self._cuts_all:
                raise ConnectionResetError
            await self._open[Way.THERE].wait()
            await self._loop.sock_connect(link.server, self._upstream)
            async with asyncio.TaskGroup() as group:
                for way in Way:
                    group.create_task(self._pump(link, way))
            link.client.close()
            link.server.close()
        except* OSError:
            self.felt["cut"] += 1
        finally:
            self._links.discard(link)
            link.reset()

    async def _pump(self, link: _Link, way: Way) -> None:
        source, goal = link.ends(way)
        while piece := await self._loop.sock_recv(source, _CHUNK):
            self._look(link, way, piece)
            await self._wait(way)
            await self._loop.sock_sendall(goal, piece)
            self.felt["passed"] += 1
        with suppress(OSError):
            goal.shutdown(socket.SHUT_WR)

    async def _wait(self, way: Way) -> None:
        if self._delay.seconds:
            self.felt["delayed"] += 1
            await asyncio.sleep(self._delay.seconds + self._random.uniform(-1, 1) * self._delay.jitter)
        if not self._open[way].is_set():
            self.felt["held"] += 1
            await self._open[way].wait()

    def _look(self, link: _Link, way: Way, piece: bytes) -> None:
        """Finds the statement whose answer is to be lost; raises ConnectionResetError at that answer."""
        if link.doomed:
            self.felt["answers cut"] += 1
            raise ConnectionResetError
        if self._unanswered is None or way is Way.BACK:
            return
        link.marked = link.marked or self._unanswered.after in piece
        if link.marked and self._unanswered.to in piece:
            link.doomed, self._unanswered = True, None
