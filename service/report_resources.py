"""Builds what makes coupon reports and exports in the API, with threads and connections that no other calls need."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from service.config import Settings
from service.limits import MAX_EXPORTS
from service.resources import open_engine
from service.usecases.coupon_report import CouponReporter
from service.usecases.issuance_export import IssuanceExporter
from service.usecases.log_watch import LogWatch
from service.usecases.operator_work import BoundedStreams, ExclusiveWork


@dataclass(frozen=True, slots=True)
class ReportResources:
    """What the routes of reports and exports use."""

    reporter: CouponReporter
    reporting: ExclusiveWork
    exporter: IssuanceExporter
    exports: BoundedStreams


@asynccontextmanager
async def open_reports(settings: Settings, log_watch: LogWatch) -> AsyncIterator[ReportResources]:
    """Build the use cases; at the end what reads all rows of a coupon is cancelled, and a page is waited for."""
    async with AsyncExitStack() as opened:
        # one connection for the report, one for the thread of the exports
        store = opened.enter_context(open_engine(settings, "api reports", connections=2))
        reporting, exports = ExclusiveWork("report"), BoundedStreams("exports", MAX_EXPORTS)
        for threads in (reporting, exports):
            opened.push_async_callback(threads.close)
        yield ReportResources(CouponReporter(settings, store, log_watch), reporting, IssuanceExporter(store), exports)
