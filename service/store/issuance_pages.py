"""Queries of an export: where the requests of a coupon are in the logs, and the rows of a range of offsets."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from service.domain.request import ReasonCode, RequestState
from service.store.tables import LIVE_OR_ENDED_ROWS


class OffsetSpan(NamedTuple):
    """The offsets of one partition between the first and the last request of a coupon, both included."""

    log_id: int
    partition: int
    first: int
    last: int

    def pages(self, offsets: int) -> "Iterator[OffsetSpan]":
        """Yield the span in parts of so many offsets."""
        for first in range(self.first, self.last + 1, offsets):
            yield self._replace(first=first, last=min(first + offsets - 1, self.last))


class StoredIssuance(NamedTuple):
    """A request as an export shows it, in this order of columns."""

    request_id: str
    coupon_id: int
    user_id: int
    state: RequestState
    code: ReasonCode | None
    sequence: int | None
    attempts: int
    requested_at: datetime
    decided_at: datetime | None
    log_id: int
    partition: int
    offset: int


_SPANS = text(
    'SELECT log_id, partition, min("offset"), max("offset") FROM requests'
    f" WHERE coupon_id = :coupon AND {LIVE_OR_ENDED_ROWS} GROUP BY log_id, partition ORDER BY log_id, partition"
)


def spans(tx: Connection, coupon_id: int) -> list[OffsetSpan]:
    """Return where the coupon's requests are, in the order of the logs. Reads all rows of the coupon."""
    return [OffsetSpan(*row) for row in tx.execute(_SPANS, {"coupon": coupon_id})]


# OFFSET 0 keeps the conditions out of the inner query. With them PostgreSQL may choose an index on the coupon, and read
# all rows of the coupon for each page.
_PAGE = text(
    "SELECT request_id, coupon_id, user_id, state, code, sequence, attempts, requested_at, decided_at,"
    ' log_id, partition, "offset" FROM (SELECT * FROM requests WHERE log_id = :log_id AND partition = :partition'
    '  AND "offset" BETWEEN :first AND :last ORDER BY "offset" OFFSET 0) AS read'
    ' WHERE coupon_id = :coupon AND state = coalesce(CAST(:state AS text), state) ORDER BY "offset"'
)


def page(tx: Connection, span: OffsetSpan, coupon_id: int, state: RequestState | None) -> list[StoredIssuance]:
    """Return the coupon's requests in the span, in offset order: in one state, or in any (None)."""
    values = {**span._asdict(), "coupon": coupon_id, "state": state and state.value}
    return [StoredIssuance(*row) for row in tx.execute(_PAGE, values)]
