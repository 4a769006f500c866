"""Samples the load of a process: how late its event loop is, and how many database connections are in use."""

import asyncio
from contextvars import Context

from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from service.metrics import DATABASE_POOL_USED_RATIO, EVENT_LOOP_DELAY_SECONDS

_INTERVAL_SECONDS = 0.5


class LoadSampler:
    """Samples the running event loop and the engine until it is closed."""

    def __init__(self, store: Engine) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._schedule()

    def _schedule(self) -> None:
        self._due = self._loop.time() + _INTERVAL_SECONDS
        self._timer = self._loop.call_at(self._due, self._sample, context=Context())

    def _sample(self) -> None:
        EVENT_LOOP_DELAY_SECONDS.observe(max(0.0, self._loop.time() - self._due))
        observe_pool(self._store)
        self._schedule()

    def close(self) -> None:
        """End the timer."""
        self._timer.cancel()


def observe_pool(store: Engine) -> None:
    """Observe which share of the engine's connections is in use."""
    pool = store.pool
    assert isinstance(pool, QueuePool)
    DATABASE_POOL_USED_RATIO.observe(pool.checkedout() / pool.size())
