"""Waiting users in a process of their own: `python -m benchmarks.load.waiting_clients PLAN FOLDER`.

They request a coupon, then follow their requests until the final state: listeners by the stream of events, pollers by
asking after `refresh_after_seconds`, with the ETag of the last answer. They begin at a line on standard input.
Files in the folder say how far they are: `requested`, `following`, `result`.
"""

import asyncio
import gc
import random
import re
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop
from msgspec import Struct

from benchmarks.load.generator import cpu_seconds

_HOST = "127.0.0.1"
_HOST_HEADER = "HTTP/1.1\r\nHost: localhost\r\n"
_POST = f"POST /coupons/%d/issuances {_HOST_HEADER}Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
_GET = f"GET /issuances/%s%s {_HOST_HEADER}%s\r\n"
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"content-length: (\d+)")
_ETAG = re.compile(rb'etag: (W/"\w+")')
_OFFSET = re.compile(rb'"offset":(\d+)')
_EVENT = re.compile(rb"event: (\w+)\n(?:id: ([\w-]+)\n)?data: (.*)\n\n")
_CONNECTIONS = 64
_FIRST_ASK_SECONDS = 3.0


class WaitingPlan(Struct, frozen=True):
    """Users from `first_user` on: the listeners, then the pollers."""

    port: int
    coupon_id: int
    first_user: int
    listeners: int
    pollers: int
    max_seconds: float


class WaitingResult(Struct, frozen=True):
    """What the waiting users saw."""

    #: by name
    events: dict[str, int]
    #: by status
    polls: dict[int, int]
    #: users without a final state, and users whose position became larger
    without_final: int
    with_growing_position: int
    #: positions that were seen
    positions: int
    cpu_seconds: float


class Position:
    """The position of one user's request as the user sees it."""

    __slots__ = ("has_grown", "last", "seen")

    def __init__(self) -> None:
        self.last: int | None = None
        self.has_grown = False
        self.seen = 0

    def see(self, position: int) -> None:
        """Compare with the last position."""
        self.has_grown = self.has_grown or (self.last is not None and position > self.last)
        self.last = position
        self.seen += 1


class Listener(asyncio.Protocol):
    """One stream of events; it parses what it needs."""

    def __init__(self, request_id: str, events: Counter[str], on_first: Callable[[], object]) -> None:
        self._request = (_GET % (request_id, "/events", "")).encode()
        self._events = events
        self._on_first: Callable[[], object] | None = on_first
        self._buffer = b""
        self._offset: int | None = None
        self.position = Position()
        self.is_final = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = 0
        for match in _EVENT.finditer(self._buffer):
            end = match.end()
            self._take(match[1].decode(), match[2], match[3])
        self._buffer = self._buffer[end:]
        if end and self._on_first:
            self._on_first()
            self._on_first = None

    def _take(self, name: str, event_id: bytes | None, data: bytes) -> None:
        self._events[name] += 1
        if name == "state" and (found := _OFFSET.search(data)):
            self._offset = int(found[1])
        elif name == "progress" and self._offset is not None and event_id:
            self.position.see(max(0, self._offset - int(event_id)))
        elif name == "final":
            self.is_final = True

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.ended.done():
            self.ended.set_result(None)


class Connections:
    """Keep-alive connections that many users share, each for one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(_CONNECTIONS):
            self._idle.put_nowait(None)

    async def ask(self, request: str) -> tuple[bytes, bytes]:
        """Return head and body of the response; a connection that the server has closed is replaced."""
        connection = await self._idle.get()
        try:
            while True:
                try:
                    connection = connection or await asyncio.open_connection(_HOST, self._port)
                    reader, writer = connection
                    writer.write(request.encode())
                    head = (await reader.readuntil(_HEAD_END)).lower()
                    length = _LENGTH.search(head)
                    return head, await reader.readexactly(int(length[1])) if length else b""
                except (asyncio.IncompleteReadError, ConnectionError):
                    connection = None
        finally:
            self._idle.put_nowait(connection)


class Poller:
    """One user who asks again and again."""

    def __init__(self, request_id: str, connections: Connections, polls: Counter[int]) -> None:
        self._request_id = request_id
        self._connections = connections
        self._polls = polls
        self.position = Position()
        self.is_final = False

    async def follow(self) -> None:
        """Ask until the state is final. Users do not begin at the same moment."""
        headers, interval = "", 1
        await asyncio.sleep(random.uniform(0, _FIRST_ASK_SECONDS))
        while not self.is_final:
            head, body = await self._connections.ask(_GET % (self._request_id, "", headers))
            self._polls[int(head[9:12])] += 1
            if body:
                status: dict[str, Any] = msgspec.json.decode(body)
                refresh = status["refresh_after_seconds"]
                self.is_final, interval = refresh is None, refresh or interval
                if status.get("position") is not None:
                    self.position.see(status["position"])
            if tag := _ETAG.search(head.replace(b'w/"', b'W/"')):
                headers = f"If-None-Match: {tag[1].decode()}\r\n"
            if not self.is_final:
                await asyncio.sleep(interval)


async def run(plan: WaitingPlan, folder: Path) -> WaitingResult:
    """Request, wait for a line, follow all requests, and return what was seen."""
    connections = Connections(plan.port)
    count = plan.listeners + plan.pollers
    answers = [_request(connections, plan, user) for user in range(plan.first_user, plan.first_user + count)]
    request_ids = await asyncio.gather(*answers)
    (folder / "requested").touch()
    await asyncio.to_thread(sys.stdin.readline)
    cpu_before = cpu_seconds()
    events: Counter[str] = Counter()
    polls: Counter[int] = Counter()
    connecting = asyncio.Semaphore(_CONNECTIONS)
    listeners = [Listener(name, events, connecting.release) for name in request_ids[: plan.listeners]]
    loop = asyncio.get_running_loop()
    for listener in listeners:
        await connecting.acquire()
        await loop.create_connection(partial(_same, listener), _HOST, plan.port)
    for _ in range(_CONNECTIONS):  # until the last ones have their first event
        await connecting.acquire()
    (folder / "following").touch()
    pollers = [Poller(name, connections, polls) for name in request_ids[plan.listeners :]]
    tasks = [asyncio.ensure_future(poller.follow()) for poller in pollers]
    await asyncio.wait([*tasks, *(listener.ended for listener in listeners)], timeout=plan.max_seconds)
    for task in tasks:
        task.cancel()
    users: list[Listener | Poller] = [*listeners, *pollers]
    return WaitingResult(
        dict(events),
        dict(polls),
        sum(not user.is_final for user in users),
        sum(user.position.has_grown for user in users),
        sum(user.position.seen for user in users),
        cpu_seconds() - cpu_before,
    )


def _same(listener: Listener) -> Listener:
    return listener


async def _request(connections: Connections, plan: WaitingPlan, user_id: int) -> str:
    body = f'{{"user_id":{user_id}}}'
    head, answer = await connections.ask(_POST % (plan.coupon_id, len(body), body))
    assert head.startswith(b"http/1.1 202"), head + answer
    return str(msgspec.json.decode(answer)["request_id"])


def main() -> None:
    """Run one plan."""
    folder = Path(sys.argv[2])
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=WaitingPlan)
    gc.freeze()
    result = uvloop.run(run(plan, folder))
    written = folder / "result.part"
    written.write_bytes(msgspec.json.encode(result))
    written.rename(folder / "result")


if __name__ == "__main__":
    main()
