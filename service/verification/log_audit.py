"""Walks a partition of the log and its rows side by side, from the first record."""

from collections.abc import Iterator
from functools import lru_cache, partial

from sqlalchemy import Connection

from service.config import Settings
from service.domain.record import RawRecord
from service.domain.request import ReasonCode, Request
from service.domain.request_id import RequestIds
from service.store import requests
from service.stream import log_reader
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.verification import queries
from service.verification.order import version_index_at
from service.verification.queries import AuditRow

_UNDECIDED_AT_ONCE = 5_000
_COUPONS_KNOWN = 1_000
_OF_WINDOWS = (ReasonCode.NOT_OPEN, ReasonCode.CLOSED, ReasonCode.PAUSED)


class LogAudit:
    """Compares what is in the log with what the database has; of one coupon, or of all."""

    def __init__(
        self,
        settings: Settings,
        tx: Connection,
        log_id: int,
        ids: RequestIds,
        reader: RecordReader,
        coupon_id: int | None,
    ) -> None:
        self._settings = settings
        self._tx = tx
        self._log_id = log_id
        self._ids = ids
        self._reader = reader
        self._coupon_id = coupon_id
        self._undecided: list[str] = []
        self._versions = lru_cache(_COUPONS_KNOWN)(partial(queries.coupon_versions, tx))

    def audit_partition(self, partition: int, passed: int) -> Iterator[str]:
        """Yields `records` for each record and the name of each finding; records from `passed` on are undecided."""
        rows = queries.audit_rows(self._tx, self._log_id, partition, self._coupon_id)
        beginning = log_reader.first_offset(self._settings, Topic.ISSUE_COUPON, partition)
        row = next(rows, None)
        while row is not None and row.offset < beginning:
            yield "archived"
            row = next(rows, None)
        for raw, request in self._records(partition):
            yield "records"
            while row is not None and row.offset < raw.log_position.offset:
                yield "phantom"
                row = next(rows, None)
            mine = row if row is not None and row.offset == raw.log_position.offset else None
            if verdict := self._verdict(raw, request, mine, passed):
                yield verdict
            row = next(rows, None) if mine else row
        yield from ("phantom" for left in (row, *rows) if left is not None)
        self._keep()

    def _records(self, partition: int) -> Iterator[tuple[RawRecord, Request | None]]:
        for raw in log_reader.read_records(self._settings, Topic.ISSUE_COUPON, partition, None):
            request = self._reader.decode(raw).request
            if self._coupon_id is None or (request and request.coupon_id == self._coupon_id):
                yield raw, request

    def _verdict(self, raw: RawRecord, request: Request | None, row: AuditRow | None, passed: int) -> str | None:
        if raw.log_position.offset >= passed:
            self._note(request)
            return "contradicted" if row else "undecided"
        if row is None:
            again = request and requests.find(self._tx, request.coupon_id, request.user_id, request.request_id)
            return "redelivered" if again else "lost"
        if request and row.state == "poison":
            return "readable_by_now"
        if not self._agrees(row, request):
            return "contradicted"
        return None if self._is_in_time(raw, request, row) else "window_ignored"

    def _is_in_time(self, raw: RawRecord, request: Request | None, row: AuditRow) -> bool:
        """Whether a record that was not judged at the gate heard what its coupon's window said at its append time."""
        if request is None or request.accepted or row.replayed or row.state == "dead":
            return True
        versions = self._versions(request.coupon_id)
        number = version_index_at(versions, (self._log_id, raw.log_position.offset))
        if number < 0:
            return True
        said = versions[number].window_refusal(raw.appended_at_ms)
        return row.code == said if said else row.code not in _OF_WINDOWS

    def _agrees(self, row: AuditRow, request: Request | None) -> bool:
        """A record without a request has no request's row; one with a request has that of the same id and user.

        An id that was derived before a key's rotation is another text for the same claim.
        """
        if request is None or row.request_id is None:
            return request is None and row.state in ("poison", "dead")
        same = row.request_id == request.request_id or (
            not request.accepted and self._ids.decode(row.request_id) == self._ids.decode(request.request_id)
        )
        return same and (row.coupon_id, row.user_id) == (request.coupon_id, request.user_id)

    def _note(self, request: Request | None) -> None:
        if request:
            self._undecided.append(request.request_id)
        if len(self._undecided) >= _UNDECIDED_AT_ONCE:
            self._keep()

    def _keep(self) -> None:
        queries.insert_undecided(self._tx, self._undecided)
        self._undecided.clear()
