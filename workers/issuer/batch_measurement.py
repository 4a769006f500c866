"""Measures a batch for Prometheus: a few observations for each, however many records it has."""

import time
from collections.abc import Callable, Sequence

from service.domain.record import Record
from service.metrics import (
    BATCH_DURATION,
    BATCH_RECORDS,
    DECIDE_SECONDS,
    DECISION_WAIT_SECONDS,
    DECISIONS,
    UNVERIFIED_IDS,
    WRITE_SECONDS,
)
from service.usecases.write_plan import IssueResult

#: records of a batch whose wait is measured
_MEASURED_WAITS = 20


class BatchMeasurement:
    """The times of one batch, which begins when this is created. A batch that fails is not counted."""

    def __init__(self, on_decided: Callable[[], object]) -> None:
        """`on_decided` is called whenever this one's is."""
        self._on_decided = on_decided
        self._began = time.monotonic()
        self._decided_at: float | None = None

    def on_decided(self) -> None:
        """Note that the decisions are made; after a failed record it is called again for each part of the batch."""
        if self._decided_at is None:
            self._decided_at = time.monotonic()
        self._on_decided()

    def on_committed(self, records: Sequence[Record], issued: IssueResult) -> None:
        """Count what the batch decided. `records`: all of it, of which the transaction covers the first ones."""
        now = time.monotonic()
        decided_at = now if self._decided_at is None else self._decided_at
        DECIDE_SECONDS.observe(decided_at - self._began)
        WRITE_SECONDS.observe(now - decided_at)
        BATCH_RECORDS.labels(str(issued.plain).lower()).observe(issued.record_count)
        for (state, code), count in issued.counts.items():
            DECISIONS.labels(state, code or "").inc(count)
        UNVERIFIED_IDS.inc(len(issued.unverified))
        _observe_waits(records[: issued.record_count], time.time())

    def on_published(self) -> None:
        """Note that the messages of the batch are queued."""
        BATCH_DURATION.observe(time.monotonic() - self._began)


def _observe_waits(records: Sequence[Record], now: float) -> None:
    """Observe the wait of evenly spaced records, each for as many as lie around it."""
    step = -(-len(records) // _MEASURED_WAITS)
    for first in range(0, len(records), step or 1):
        group = records[first : first + step]
        wait_seconds = now - group[len(group) // 2].appended_at_ms / 1000
        DECISION_WAIT_SECONDS.observe_many(max(0.0, wait_seconds), len(group))
