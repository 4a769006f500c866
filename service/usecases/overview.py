"""What an operator sees at a glance: read once a second for all who watch, from what the other use cases know."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Engine

from service.domain.coupon import Coupon
from service.domain.rate_meter import RateMeter
from service.domain.system_alerts import SystemAlert
from service.limits import MAX_DASHBOARD_COUPONS
from service.metrics import ISSUED_REQUESTS, Metric, Values, by_label, single
from service.store import coupons, recent_waits
from service.store.engine import in_transaction
from service.store.recent_waits import RecentWaits
from service.usecases.part_source import Source
from service.usecases.system_alerts import SystemAlerts
from service.usecases.system_values import SystemValues

#: the parts answer within a second, or are left out
_TIMEOUT_SECONDS = 1.0


class Rate(NamedTuple):
    """Events in a second: now, and in the fastest second that was watched; None: not known."""

    now: float | None
    peak: float


class Board(NamedTuple):
    """What is read of the database for the overview alone."""

    #: those on sale first
    coupons: Sequence[Coupon]
    waits: RecentWaits | None


class Overview(NamedTuple):
    """The state of the system at one moment. What a part did not answer is None, or absent from `values`."""

    at_ms: int
    #: since when rates are watched
    watched_since_ms: int
    #: None: not yet
    alerts_observed_at: datetime | None
    alerts: Sequence[SystemAlert]
    accepts: Rate
    issues: Rate
    board: Board | None
    #: what Prometheus gets, too
    values: Values

    def value(self, metric: Metric) -> float | None:
        """Return the value of a metric without labels."""
        return single(self.values, metric)

    def by_label(self, metric: Metric) -> Mapping[str, float]:
        """Return the values of a metric by its only label."""
        return by_label(self.values, metric)


def read_board(store: Engine, now_ms: Callable[[], int]) -> Board:
    """Return the coupons to watch and the latest waits; raise Unavailable."""
    with in_transaction(store) as tx:
        return Board(coupons.on_sale_first(tx, now_ms(), MAX_DASHBOARD_COUPONS), recent_waits.read(tx))


class OverviewReader:
    """Reads overviews one after another. Rates are differences between them: what the log has, and what is issued."""

    def __init__(
        self,
        alerts: SystemAlerts,
        system_values: SystemValues,
        board: Source[Board],
        partitions: int,
        now_ms: Callable[[], int],
    ) -> None:
        """`partitions`: of the log."""
        self._alerts = alerts
        self._system_values = system_values
        self._board = board
        self._partitions = partitions
        self._now_ms = now_ms
        self._accepts, self._issues = RateMeter(), RateMeter()
        self._watched_since_ms: int | None = None

    async def read(self) -> Overview:
        """Read all parts at the same time; takes about a second at most, whatever they do."""
        board, reading = await asyncio.gather(
            asyncio.to_thread(self._board.answer, _TIMEOUT_SECONDS),
            asyncio.to_thread(self._system_values.observe),
        )
        issued = single(reading.values, ISSUED_REQUESTS)
        if issued is not None and reading.database_at is not None:
            self._issues.observe(int(issued), reading.database_at)
        # a part of the log has no size: with the other partitions it would seem to have grown at once
        log = reading.log_ends if reading.log_ends and len(reading.log_ends.result) == self._partitions else None
        if log is not None:
            self._accepts.observe(sum(log.result.values()), log.at)
        at_ms = self._now_ms()
        if self._watched_since_ms is None:
            self._watched_since_ms = at_ms
        return Overview(
            at_ms,
            self._watched_since_ms,
            self._alerts.observed_at,
            self._alerts.active(),
            Rate(None if log is None else self._accepts.per_second, self._accepts.peak_per_second),
            Rate(None if issued is None else self._issues.per_second, self._issues.peak_per_second),
            board and board.result,
            reading.values,
        )
