"""Sends what a plan says over keep-alive connections, from one thread; the bytes are built before the clock runs."""

import asyncio
import resource
import time
from collections import Counter, deque

from benchmarks.arrivals import Arrivals
from benchmarks.load.connection import Connection
from benchmarks.load.plan import Plan, Pressed

_HOST = "127.0.0.1"
_TICK_SECONDS = 0.001


class Generator:
    """One run of a plan; `run` gives what became of it, or raises what a connection raised."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._arrivals = Arrivals(plan.rate, plan.requests) if plan.rate else None
        self._requests = [request(plan, number) for number in range(plan.requests)]
        self._due = [0.0] * plan.requests
        self._sent = [0.0] * plan.requests
        self._answered = [0.0] * plan.requests
        self._statuses: Counter[int] = Counter()
        self._free: deque[Connection] = deque()
        self._released = self._next = self._done = 0

    async def run(self) -> Pressed:
        """Connects, sends everything, waits for every answer."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        connections = [await self._connect() for _ in range(self._plan.connections)]
        self._free.extend(connections)
        used = _cpu_seconds()
        self._epoch = time.time() - time.monotonic()
        self._began = time.monotonic()
        self._tick()
        await self._ended
        wall, cpu = time.monotonic() - self._began, _cpu_seconds() - used
        for connection in connections:
            connection.close()
        return self._pressed(cpu, wall)

    async def _connect(self) -> Connection:
        made = await self._loop.create_connection(
            lambda: Connection(self._on_answer, self._fail), _HOST, self._plan.port
        )
        return made[1]

    def _tick(self) -> None:
        """Releases what is due by now, and comes back until all is."""
        elapsed = time.monotonic() - self._began
        if self._arrivals:
            self._released = self._arrivals.due_by(elapsed)
            if self._released < self._plan.requests:
                wait = self._arrivals.due_at(self._released) - elapsed
                self._loop.call_later(max(wait, _TICK_SECONDS), self._tick)
        elif self._plan.seconds is not None and elapsed >= self._plan.seconds:
            self._released = self._next
        else:
            self._released = self._plan.requests
            if self._plan.seconds is not None:
                self._loop.call_later(self._plan.seconds - elapsed, self._tick)
        self._flow()

    def _flow(self) -> None:
        while self._free and self._next < self._released:
            self._send(self._free.popleft())
        self._end_if_done()

    def _send(self, connection: Connection) -> None:
        number, self._next = self._next, self._next + 1
        now = time.monotonic()
        self._sent[number] = now
        self._due[number] = self._began + self._arrivals.due_at(number) if self._arrivals else now
        connection.send(number, self._requests[number])

    def _on_answer(self, connection: Connection, status: int) -> None:
        self._answered[connection.number] = time.monotonic()
        self._statuses[status] += 1
        self._done += 1
        if self._next < self._released:
            self._send(connection)
        else:
            self._free.append(connection)
            self._end_if_done()

    def _end_if_done(self) -> None:
        over = self._arrivals is None and self._released == self._next
        if (over or self._next == self._plan.requests) and self._done == self._next and not self._ended.done():
            self._ended.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _pressed(self, cpu_seconds: float, wall_seconds: float) -> Pressed:
        due, sent, answered = (
            [at + self._epoch for at in times[: self._done]] for times in (self._due, self._sent, self._answered)
        )
        return Pressed(self._began + self._epoch, due, sent, answered, dict(self._statuses), cpu_seconds, wall_seconds)


def request(plan: Plan, number: int) -> bytes:
    """The bytes of the request of this number."""
    body = b'{"user_id":%d}' % (plan.first_user + number)
    path = plan.paths[number % len(plan.paths)].encode()
    head = b"POST %b HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (path, len(body)) + body


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
