"""Reports how a coupon was sold, from one snapshot of the database."""

from contextlib import suppress

from sqlalchemy import Engine

from service.cancellation import Cancellation
from service.config import Settings
from service.domain.coupon_report import CouponReport, Period, Series, bin_seconds, find_sell_out
from service.domain.errors import Unavailable
from service.store import checkpoints, coupons, engine, report_queries
from service.stream import log_reader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases.coupons import unknown_coupon
from service.usecases.log_watch import LogWatch


class CouponReporter:
    """Makes coupon reports, read-only. The database counts, so that memory does not grow with the coupon."""

    def __init__(self, settings: Settings, store: Engine, log_watch: LogWatch) -> None:
        self._settings = settings
        self._store = store
        self._log_watch = log_watch

    def report(self, coupon_id: int, cancellation: Cancellation | None = None) -> CouponReport:
        """Return the report; raise NotFound, Unavailable, or Cancelled, which ends the query in progress."""
        cancellation = cancellation or Cancellation()
        with engine.repeatable_read(self._store) as tx, engine.long_read(tx, cancellation):
            as_of = engine.database_now(tx)
            coupon = coupons.get(tx, coupon_id)
            if coupon is None:
                raise unknown_coupon(coupon_id)
            _, current = checkpoints.of_open_log(tx)
            counts = report_queries.count_requests(tx, coupon_id)
            cancellation.check()
            waits = report_queries.waits(tx, coupon_id)
            cancellation.check()
            width = bin_seconds(counts.events or Period(as_of, as_of))
            series = Series(width, report_queries.series(tx, coupon_id, width))
            sell_out = find_sell_out(coupon, report_queries.opened_at(tx, coupon_id), counts)
        partition = partition_of(coupon_id, self._settings.topic_partitions)
        next_offset = current[partition].next_offset if partition in current else 0
        undecided = self._count_undecided(partition, next_offset)
        return CouponReport(coupon, as_of, counts, undecided, sell_out, waits, series)

    def _count_undecided(self, partition: int, next_offset: int) -> int | None:
        """Return how many records of the partition are not before `next_offset`; None if Kafka does not say that.

        Markers of transactions count as records.
        """
        with suppress(Unavailable):
            self._log_watch.require_open_log()
            first, end = log_reader.present_range(self._settings, Topic.ISSUE_COUPON, partition)
            return max(0, end - max(first, next_offset))
        return None
