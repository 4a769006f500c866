"""What an operator sees at a glance: read once a second for all who watch, from what the other use cases know."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import wait
from typing import NamedTuple, TypeVar

from sqlalchemy import Engine

from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.rate_meter import RateMeter
from service.domain.system_alerts import SystemAlert
from service.limits import MAX_DASHBOARD_COUPONS
from service.metrics import ByLabels, Metric, Values
from service.store import coupons, recent_waits
from service.store.engine import in_transaction
from service.store.recent_waits import RecentWaits
from service.usecases.part_source import Source, answer_of
from service.usecases.system_alerts import SystemAlerts
from service.usecases.system_values import SystemValues

#: the parts answer within a second, or are left out
_TIMEOUT_SECONDS = 1.0

Result = TypeVar("Result")


class Rate(NamedTuple):
    """Events in a second: now, and in the fastest second that was watched; None: not known."""

    now: float | None
    peak: float


class Board(NamedTuple):
    """What is read of the database for the overview alone."""

    #: the newest ones that are not archived
    coupons: Sequence[Coupon]
    waits: RecentWaits | None
    #: all coupons together
    issued: int
    #: by the monotonic clock
    read_at: float


class LogSize(NamedTuple):
    """How many records have been appended to the log."""

    records: int
    #: by the monotonic clock
    read_at: float


class Overview(NamedTuple):
    """The state of the system at one moment. What a part did not answer is None or absent."""

    at_ms: int
    #: since when rates are watched
    watched_since_ms: int
    alerts: Sequence[SystemAlert]
    accepts: Rate
    issues: Rate
    board: Board | None
    #: what Prometheus gets, too
    values: Values

    def value(self, metric: Metric) -> float | None:
        """Return the value of a metric without labels."""
        return self.values.get(metric, {}).get(())

    def by_label(self, metric: Metric) -> Mapping[str, float]:
        """Return the values of a metric by its only label."""
        found: ByLabels = self.values.get(metric, {})
        return {labels[0]: value for labels, value in found.items()}


def read_board(store: Engine) -> Board:
    """Return the newest coupons, the latest waits and how many are issued; raise Unavailable."""
    with in_transaction(store) as tx:
        read_at = time.monotonic()
        newest = coupons.newest(tx, MAX_DASHBOARD_COUPONS)
        return Board(newest, recent_waits.read(tx), coupons.count_issued(tx), read_at)


def read_log_size(read_ends: Callable[[], Mapping[int, int]], partitions: int) -> LogSize:
    """Return the size of the log; `read_ends` returns the end offsets by partition. Raises Unavailable.

    A part of the log has no size: with the other partitions it would seem to have grown at once.
    """
    ends = read_ends()
    if len(ends) < partitions:
        raise Unavailable("Kafka", "a partition has no leader that answers")
    return LogSize(sum(ends.values()), time.monotonic())


class OverviewReader:
    """Reads overviews one after another: rates are differences between them."""

    def __init__(
        self,
        alerts: SystemAlerts,
        system_values: SystemValues,
        board: Source[Board],
        log_size: Source[LogSize],
        now_ms: Callable[[], int],
    ) -> None:
        self._alerts = alerts
        self._system_values = system_values
        self._board = board
        self._log_size = log_size
        self._now_ms = now_ms
        self._accepts, self._issues = RateMeter(), RateMeter()
        self._watched_since_ms: int | None = None

    async def read(self) -> Overview:
        """Read all parts at the same time; takes about a second at most, whatever they do."""
        board, log_size, values = await asyncio.gather(
            asyncio.to_thread(_answer_in_time, self._board),
            asyncio.to_thread(_answer_in_time, self._log_size),
            asyncio.to_thread(self._system_values.read),
        )
        if board is not None:
            self._issues.observe(board.issued, board.read_at)
        if log_size is not None:
            self._accepts.observe(log_size.records, log_size.read_at)
        at_ms = self._now_ms()
        if self._watched_since_ms is None:
            self._watched_since_ms = at_ms
        return Overview(
            at_ms,
            self._watched_since_ms,
            self._alerts.active(),
            Rate(None if log_size is None else self._accepts.per_second, self._accepts.peak_per_second),
            Rate(None if board is None else self._issues.per_second, self._issues.peak_per_second),
            board,
            values,
        )


def _answer_in_time(source: Source[Result]) -> Result | None:
    """Return what a part answers, or None if it fails or takes longer than a second."""
    asked = source.ask()
    wait([asked], timeout=_TIMEOUT_SECONDS)
    answer = answer_of(asked)
    return answer.result if answer else None
