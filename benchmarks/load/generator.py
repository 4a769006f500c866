"""HTTP load generator: `python -m benchmarks.load.generator PLAN RESULT`, a plan's file and the result's file.

It sends over keep-alive connections from one thread. The requests' bytes are built before the clock starts.
"""

import asyncio
import gc
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from benchmarks.load.http_load import ArrivalSchedule, LoadResult, Plan
from service.domain.ticket import Purpose, Ticket, Tickets

_HOST = "127.0.0.1"
_TICK_SECONDS = 0.001
_TICKET_SECONDS = 600
_HEAD = "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n"
_NUMBER = b"{number}"
_HEAD_END = b"\r\n\r\n"
_CONTENT_LENGTH = b"content-length:"
_STATUS = slice(9, 12)


class ConnectionClosed(Exception):
    """Raised when the server closes a connection during the run."""


class Connection(asyncio.Protocol):
    """Keep-alive HTTP/1.1 connection with one request in flight; it parses only status and length of a response.

    It calls `on_response` with itself and the status of each response, `on_error` with an error that ends it.
    """

    def __init__(self, on_response: Callable[["Connection", int], None], on_error: Callable[[Exception], None]) -> None:
        self._on_response = on_response
        self._on_error = on_error
        self._buffer = b""
        self._closing = False
        self._transport: asyncio.Transport | None = None
        #: number of the request in flight
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, number: int, request: bytes) -> None:
        """Send request `number`; the response to the previous one has been received."""
        self.number = number
        self.write(request)

    def write(self, segment: bytes) -> None:
        """Send some bytes of a request, unless the server has closed the connection."""
        assert self._transport
        if not self._transport.is_closing():
            self._transport.write(segment)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            return
        head = self._buffer[:end].lower()
        if len(self._buffer) < end + len(_HEAD_END) + _content_length(head):
            return
        self._buffer = b""
        self._on_response(self, int(head[_STATUS]))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._on_error(exc or ConnectionClosed("the server closed the connection"))

    def close(self) -> None:
        """Close the connection without an error."""
        self._closing = True
        if self._transport:
            self._transport.close()


class Generator:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._schedule = ArrivalSchedule(plan.rate, plan.requests) if plan.rate else None
        self._requests = [build_request(plan, number) for number in range(plan.requests)]
        self._due = [0.0] * plan.requests
        self._sent = [0.0] * plan.requests
        self._responded = [0.0] * plan.requests
        self._statuses: Counter[int] = Counter()
        self._idle: deque[Connection] = deque()
        #: requests that may be sent by now, that were sent, that were responded to
        self._released = self._next = self._done = 0

    async def run(self) -> LoadResult:
        """Connect, send all requests, wait for all responses; raise the error of a connection that fails."""
        self._loop = asyncio.get_running_loop()
        self._finished = self._loop.create_future()
        connections = [await self._connect() for _ in range(self._plan.connections)]
        self._idle.extend(connections)
        cpu_before = cpu_seconds()
        self._epoch = time.time() - time.monotonic()
        self._began = time.monotonic()
        self._tick()
        await self._finished
        wall, cpu = time.monotonic() - self._began, cpu_seconds() - cpu_before
        for connection in connections:
            connection.close()
        return self._result(cpu, wall)

    async def _connect(self) -> Connection:
        _, protocol = await self._loop.create_connection(
            lambda: Connection(self._on_response, self._on_error), _HOST, self._plan.port
        )
        return protocol

    def _tick(self) -> None:
        """Release the requests that are due, and schedule the next call while some are not."""
        elapsed = time.monotonic() - self._began
        if self._schedule:
            self._released = self._schedule.due_count(elapsed)
            if self._released < self._plan.requests:
                wait = self._schedule.due_at(self._released) - elapsed
                self._loop.call_later(max(wait, _TICK_SECONDS), self._tick)
        elif self._plan.seconds is not None and elapsed >= self._plan.seconds:
            self._released = self._next
        else:
            self._released = self._plan.requests
            if self._plan.seconds is not None:
                self._loop.call_later(self._plan.seconds - elapsed, self._tick)
        while self._idle and self._next < self._released:
            self._send(self._idle.popleft())
        self._finish_if_done()

    def _send(self, connection: Connection) -> None:
        number, self._next = self._next, self._next + 1
        now = time.monotonic()
        self._sent[number] = now
        self._due[number] = self._began + self._schedule.due_at(number) if self._schedule else now
        request = self._requests[number]
        if self._plan.split:
            head, end, body = request.partition(_HEAD_END)
            connection.send(number, head + end)
            self._loop.call_later(_TICK_SECONDS, connection.write, body)
        else:
            connection.send(number, request)

    def _on_response(self, connection: Connection, status: int) -> None:
        self._responded[connection.number] = time.monotonic()
        self._statuses[status] += 1
        self._done += 1
        if self._next < self._released:
            self._send(connection)
        else:
            self._idle.append(connection)
            self._finish_if_done()

    def _finish_if_done(self) -> None:
        time_is_over = self._schedule is None and self._released == self._next
        all_sent = time_is_over or self._next == self._plan.requests
        if all_sent and self._done == self._next and not self._finished.done():
            self._finished.set_result(None)

    def _on_error(self, error: Exception) -> None:
        if not self._finished.done():
            self._finished.set_exception(error)

    def _result(self, cpu_seconds: float, wall_seconds: float) -> LoadResult:
        due, sent, responded = (
            [at + self._epoch for at in times[: self._done]] for times in (self._due, self._sent, self._responded)
        )
        began = self._began + self._epoch
        return LoadResult(began, due, sent, responded, dict(self._statuses), cpu_seconds, wall_seconds)


def build_request(plan: Plan, number: int) -> bytes:
    """Return the bytes of request `number`."""
    user_id = plan.first_user + (number % plan.users if plan.users else number)
    body = b'{"user_id":%d}' % user_id if plan.body is None else plan.body.encode()
    headers = "".join(f"{name}: {value}\r\n" for name, value in plan.headers.items())
    if plan.tokens:
        headers += f"Authorization: Bearer {plan.tokens[number]}\r\n"
    if plan.ticket_key is not None:
        headers += f"Authorization: Bearer {_ticket(plan.ticket_key, user_id)}\r\n"
    head = _HEAD % (plan.paths[number % len(plan.paths)], plan.content_type, len(body), headers)
    return head.encode().replace(_NUMBER, b"%016d" % number) + body


def _ticket(key: str, user_id: int) -> str:
    expires_at = int(time.time()) + _TICKET_SECONDS
    return Tickets([key.encode()]).issue(Ticket(Purpose.ACCEPT, user_id, expires_at))


def _content_length(head: bytes) -> int:
    at = head.find(_CONTENT_LENGTH)
    if at < 0:
        return 0
    return int(head[at + len(_CONTENT_LENGTH) :].split(b"\r\n", 1)[0])


def cpu_seconds() -> float:
    """Return the CPU time that this process has used, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Run one plan, with Python's cyclic garbage collector off."""
    plan_file, result_file = map(Path, sys.argv[1:])
    plan = msgspec.json.decode(plan_file.read_bytes(), type=Plan)
    gc.disable()
    result = uvloop.run(Generator(plan).run())
    result_file.write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
