"""Exports the requests of a coupon, page by page."""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Engine

from service.cancellation import Cancellation
from service.domain.errors import InvalidInput
from service.domain.request import RequestState
from service.limits import EXPORT_PAGE_OFFSETS
from service.store import coupons, issuance_pages
from service.store.engine import in_transaction, long_read
from service.store.issuance_pages import OffsetSpan, StoredIssuance
from service.usecases.coupons import unknown_coupon

#: of each line of an export
COLUMNS = StoredIssuance._fields


class ExportFormat(StrEnum):
    """The forms of an export."""

    CSV = "csv"
    JSONL = "jsonl"


class IssuanceExporter:
    """Reads the requests of a coupon in the order of the log, in bounded memory.

    Each page is a transaction of its own: a slow reader holds none. An export has every request that was decided when
    it began, once, and none that has a later offset. Each has its state at the moment at which its page was read.
    """

    def __init__(self, store: Engine) -> None:
        self._store = store

    def begin(
        self,
        coupon_id: int,
        form: ExportFormat,
        state: RequestState | None = None,
        cancellation: Cancellation | None = None,
    ) -> Iterator[bytes]:
        """Find the requests of a coupon, and return their pages, which are read one by one, as encoded text.

        state: only requests in this state; None: in any. Raises NotFound, InvalidInput for a state that no stored
        request has, Cancelled, and Unavailable, also while the pages are read. Reads all rows of the coupon once, and
        then for each page EXPORT_PAGE_OFFSETS offsets of a partition. A page is empty if the coupon has no request
        there.
        """
        if state is RequestState.QUEUED:
            raise InvalidInput("A request in state queued is not decided, so no export has it. Choose another state.")
        with (
            in_transaction(self._store) as tx,
            long_read(tx, cancellation or Cancellation()),
        ):
            if coupons.get(tx, coupon_id) is None:
                raise unknown_coupon(coupon_id)
            spans = issuance_pages.spans(tx, coupon_id)
        return self._encoded(spans, coupon_id, form, state)

    def _encoded(
        self, spans: Sequence[OffsetSpan], coupon_id: int, form: ExportFormat, state: RequestState | None
    ) -> Iterator[bytes]:
        if form is ExportFormat.CSV:
            yield _csv_lines([COLUMNS])
        for span in spans:
            for part in span.pages(EXPORT_PAGE_OFFSETS):
                with in_transaction(self._store) as tx:
                    rows = issuance_pages.page(tx, part, coupon_id, state)
                yield _ENCODERS[form](rows)


def _csv_lines(rows: Sequence[Sequence[Any]]) -> bytes:
    """Encode rows by RFC 4180: times as in JSON (RFC 3339), None as an empty cell.

    No cell begins with a character that a spreadsheet takes for a formula: =, +, - or @.
    """
    lines = io.StringIO()
    csv.writer(lines).writerows(msgspec.to_builtins(rows))
    return lines.getvalue().encode()


def _json_lines(rows: Sequence[StoredIssuance]) -> bytes:
    """Encode each row as a JSON object on a line."""
    return msgspec.json.Encoder().encode_lines([row._asdict() for row in rows])


_ENCODERS: Mapping[ExportFormat, Callable[[Sequence[StoredIssuance]], bytes]] = {
    ExportFormat.CSV: _csv_lines,
    ExportFormat.JSONL: _json_lines,
}
