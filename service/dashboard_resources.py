"""Builds what the dashboard uses: the overview that all its viewers share, and the limit on failed logins."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from time import monotonic_ns

from service.clock import now_ms
from service.config import Settings
from service.domain.rate_limit import LimitScope, LocalLimiter, RateLimit
from service.limits import FAILED_LOGINS_OF_ALL, FAILED_LOGINS_PER_ADDRESS
from service.resources import open_engine
from service.server.client_address import ClientAddresses
from service.usecases.overview import OverviewReader, read_board
from service.usecases.overview_feed import OverviewFeed
from service.usecases.part_source import Source
from service.usecases.system_alerts import SystemAlerts
from service.usecases.system_values import SystemValues

_MINUTE_SECONDS = 60
_FAILED_LOGIN_LIMITS = {
    LimitScope.ADDRESS: RateLimit(FAILED_LOGINS_PER_ADDRESS, _MINUTE_SECONDS),
    LimitScope.ALL: RateLimit(FAILED_LOGINS_OF_ALL, _MINUTE_SECONDS),
}


@dataclass(frozen=True, slots=True)
class DashboardResources:
    """What the routes of the dashboard use."""

    feed: OverviewFeed
    #: charged with each login that is refused
    failed_logins: LocalLimiter
    #: for that limit
    client_addresses: ClientAddresses


@asynccontextmanager
async def open_dashboard(
    settings: Settings, addresses: ClientAddresses, alerts: SystemAlerts, system_values: SystemValues
) -> AsyncIterator[DashboardResources]:
    """Build the feed with a connection of its own; at the end its streams end."""
    with (
        open_engine(settings, "api dashboard") as store,
        closing(Source("postgresql for the dashboard", partial(read_board, store, now_ms))) as board,
    ):
        feed = OverviewFeed(OverviewReader(alerts, system_values, board, settings.topic_partitions, now_ms))
        failed_logins = LocalLimiter(_FAILED_LOGIN_LIMITS, lambda: monotonic_ns() // 1000)
        try:
            yield DashboardResources(feed, failed_logins, addresses)
        finally:
            await feed.stop()
