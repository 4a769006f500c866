"""Notes the heartbeats of this worker in Redis, where the dashboard reads which workers run.

Celery's own heartbeats are events, for which each reader would need a connection to the broker.
"""

import time
from contextlib import suppress
from functools import cache

from service import config
from service.domain.errors import Unavailable
from service.gate.client import build_client
from service.gate.worker_board import WorkerBoard

#: after a failure nothing is noted for so long: a server that hangs holds up the worker for a second, and Sentinels
#: for one more
_PAUSE_SECONDS = 10.0


class HeartbeatRecorder:
    """Notes heartbeats; one that Redis does not take is lost."""

    def __init__(self, board: WorkerBoard) -> None:
        self._board = board
        self._paused_until = 0.0

    def record(self, worker: str) -> None:
        """Note that the worker runs, unless Redis failed a moment ago."""
        if time.monotonic() < self._paused_until:
            return
        try:
            self._board.record(worker)
        except Unavailable:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS

    def withdraw(self, worker: str) -> None:
        """Note that the worker ends; without Redis it is forgotten after a minute."""
        with suppress(Unavailable):
            self._board.withdraw(worker)


@cache
def recorder() -> HeartbeatRecorder:
    """Return the recorder of this process; it connects at the first heartbeat."""
    return HeartbeatRecorder(WorkerBoard(build_client(config.load_without_keys().redis_url)))
