"""Hostile clients: slow, silent and half-closed connections, each opened again after the server has ended it."""

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NoReturn

_HOST = "127.0.0.1"
_HEAD = b"POST /coupons/1/issuances HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_HEADER = b"X-Filler: a\r\n"
_HEADER_INTERVAL_SECONDS = 0.25
#: a connection is not opened more often: the server ends a half-closed one at once
_MIN_LIFETIME_SECONDS = 1.0


async def _send_slowly(writer: asyncio.StreamWriter) -> None:
    """Send a head that never ends, a short header at a time."""
    writer.write(_HEAD)
    while True:
        await asyncio.sleep(_HEADER_INTERVAL_SECONDS)
        writer.write(_HEADER)


async def _send_nothing(_: asyncio.StreamWriter) -> None:
    """Be silent."""


async def _stop_sending(writer: asyncio.StreamWriter) -> None:
    """Send half a head, then close the sending side."""
    writer.write(_HEAD)
    writer.write_eof()


_KINDS: Mapping[str, Callable[[asyncio.StreamWriter], Awaitable[None]]] = {
    "slow": _send_slowly,
    "silent": _send_nothing,
    "half_closed": _stop_sending,
}


@contextmanager
def hostile_clients(port: int, connections: int) -> Iterator[Counter[str]]:
    """Keep `connections` of each kind open while the block runs, from a thread of its own.

    Yields how often the server has ended a connection, by kind.
    """
    ended = Counter(dict.fromkeys(_KINDS, 0))
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: asyncio.run(_keep_all_open(port, connections, ended, stop)))
        try:
            yield ended
        finally:
            stop.set()
        running.result()


async def _keep_all_open(port: int, connections: int, ended: Counter[str], stop: threading.Event) -> None:
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(_keep_open(port, kind, ended)) for kind in _KINDS for _ in range(connections)]
        await asyncio.to_thread(stop.wait)
        for client in clients:
            client.cancel()


async def _keep_open(port: int, kind: str, ended: Counter[str]) -> NoReturn:
    """Open a connection again and again; raise OSError if the server does not accept it."""
    while True:
        lifetime = asyncio.create_task(asyncio.sleep(_MIN_LIFETIME_SECONDS))
        reader, writer = await asyncio.open_connection(_HOST, port)
        sending = asyncio.ensure_future(_KINDS[kind](writer))
        try:
            with suppress(ConnectionError):  # the server has reset the connection
                await reader.read()
            ended[kind] += 1
        finally:
            sending.cancel()
            writer.close()
        await lifetime
