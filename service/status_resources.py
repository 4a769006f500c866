"""Builds what serves waiting users: for each process one reader of the states of requests, and its streams."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from service.gate.async_gate import AsyncGate
from service.limits import MAX_STREAMS
from service.server.connection_guard import max_connections
from service.usecases.issuance_events import IssuanceEvents
from service.usecases.lookup import Lookup
from service.usecases.operator_work import BoundedThreads
from service.usecases.progress_watch import ProgressWatch
from service.usecases.status_reader import StatusReader


@asynccontextmanager
async def open_status_readers(lookup: Lookup, gate: AsyncGate) -> AsyncIterator[tuple[StatusReader, IssuanceEvents]]:
    """Build the reader and the streams with threads of their own; at the end the streams end.

    Each thread takes at most one of the process's connections.
    """
    progress = ProgressWatch()
    # one for the reader, one for the streams; the third one reads the log
    threads, determining_threads = BoundedThreads("look-ups", 2), BoundedThreads("look-ups of old requests", 1)
    max_streams = min(MAX_STREAMS, max_connections() // 2)
    events = IssuanceEvents(lookup, gate, progress, threads, determining_threads, max_streams)
    try:
        yield StatusReader(lookup, gate, progress, threads, determining_threads), events
    finally:
        await events.stop()
        await threads.close()
        await determining_threads.close()
