"""Reads a partition of the log beside its rows, from the first record."""

from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache, partial
from itertools import repeat

from sqlalchemy import Connection

from service.cancellation import Cancellation
from service.config import Settings
from service.domain.record import RawRecord
from service.domain.request import ReasonCode, Request
from service.domain.request_id import RequestIds
from service.store.logs import Log
from service.stream import log_reader
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.verification import queries
from service.verification.order import version_index_at
from service.verification.progress import ProofProgress
from service.verification.queries import AuditRow

_UNDECIDED_BATCH_SIZE = 5_000
_CACHED_COUPONS = 1_000
_WINDOW_CODES = (ReasonCode.NOT_OPEN, ReasonCode.CLOSED, ReasonCode.PAUSED)


class LogAudit:
    """Compares the log with the database, for one coupon or for all."""

    def __init__(
        self,
        settings: Settings,
        tx: Connection,
        log: Log,
        ids: RequestIds,
        reader: RecordReader,
        coupon_id: int | None,
        cancellation: Cancellation,
        progress: ProofProgress,
    ) -> None:
        self._settings = settings
        self._tx = tx
        self._log = log
        self._ids = ids
        self._reader = reader
        self._coupon_id = coupon_id
        self._cancellation = cancellation
        self._progress = progress
        self._undecided: list[str] = []
        #: findings in words, with their places
        self.details: list[str] = []
        self._versions = lru_cache(_CACHED_COUPONS)(partial(queries.coupon_versions, tx))

    def audit_partition(self, partition: int, next_offset: int) -> Iterator[str]:
        """Yield `records` for each record and the name of each finding.

        Records from next_offset on are undecided. Findings: deleted (an undecided offset before the log's first one),
        archived (a row whose record was deleted), phantom (a row without a record), and those of _compare. Raises
        Cancelled.
        """
        first_offset = log_reader.first_offset(self._settings, Topic.ISSUE_COUPON, partition)
        if next_offset < first_offset:
            deleted = f"offsets {next_offset} to {first_offset - 1}"
            self.details.append(f"partition {partition}: {deleted} were deleted before they were decided")
            yield from repeat("deleted", first_offset - next_offset)
        rows = queries.audit_rows(self._tx, self._log.id, partition, self._coupon_id)
        with closing(self._cancellation.watch(rows)) as watched:
            yield from self._audit_records(partition, first_offset, next_offset, watched)
        self._flush_undecided()

    def _audit_records(
        self, partition: int, first_offset: int, next_offset: int, rows: Iterator[AuditRow]
    ) -> Iterator[str]:
        """Yield the findings of reading the records and their rows side by side."""
        row = next(rows, None)
        while row is not None and row.offset < first_offset:
            yield "archived"
            row = next(rows, None)
        records = log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, None)
        for raw in self._progress.count(self._cancellation.watch(records)):
            request = self._reader.decode(raw, self._log.topic_id).request
            if self._coupon_id is not None and (request is None or request.coupon_id != self._coupon_id):
                continue
            yield "records"
            while row is not None and row.offset < raw.log_position.offset:
                yield "phantom"
                row = next(rows, None)
            own_row = row if row is not None and row.offset == raw.log_position.offset else None
            if finding := self._compare(raw, request, own_row, next_offset):
                yield finding
            row = next(rows, None) if own_row else row
        yield from ("phantom" for left in (row, *rows) if left is not None)

    def _compare(self, raw: RawRecord, request: Request | None, row: AuditRow | None, next_offset: int) -> str | None:
        """Return the finding for a record and its row, or None."""
        if raw.log_position.offset >= next_offset:
            if request:
                self._undecided.append(request.request_id)
            if len(self._undecided) >= _UNDECIDED_BATCH_SIZE:
                self._flush_undecided()
            return "contradicted" if row else "undecided"
        if row is None:
            decided = request and queries.is_decided_earlier(self._tx, self._log.id, request)
            return "redelivered" if decided else "lost"
        if request and row.state == "poison":
            return "decodable_now"
        if not self._is_row_of(row, request):
            return "contradicted"
        return None if self._keeps_window(raw, request, row) else "window_ignored"

    def _is_row_of(self, row: AuditRow, request: Request | None) -> bool:
        """Return whether the row belongs to the record: same id and user, or neither has a request.

        An id that was derived before a key rotation is another text with the same claims.
        """
        if request is None or row.request_id is None:
            return request is None and row.state in ("poison", "dead")
        same = row.request_id == request.request_id or (
            not request.accepted and self._ids.decode(row.request_id) == self._ids.decode(request.request_id)
        )
        return same and (row.coupon_id, row.user_id) == (request.coupon_id, request.user_id)

    def _keeps_window(self, raw: RawRecord, request: Request | None, row: AuditRow) -> bool:
        """Return whether a foreign record was decided by the window of its coupon at its append time.

        It was not, if foreign records were refused altogether then.
        """
        if request is None or request.accepted or row.replayed or row.state == "dead":
            return True
        if row.code == ReasonCode.FOREIGN:
            return True
        versions = self._versions(request.coupon_id)
        index = version_index_at(versions, (self._log.id, raw.log_position.offset))
        if index < 0:
            return True
        refusal = versions[index].window_refusal(raw.appended_at_ms)
        return row.code == refusal if refusal else row.code not in _WINDOW_CODES

    def _flush_undecided(self) -> None:
        queries.insert_undecided(self._tx, self._undecided)
        self._undecided.clear()
