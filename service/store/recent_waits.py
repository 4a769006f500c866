"""How long the requests waited that were decided last."""

from typing import NamedTuple

from sqlalchemy import Connection, text

from service.domain.request_id import DERIVED_START

#: of each partition the decisions of at most so many offsets before its checkpoint are read
_MAX_DECISIONS = 500
WAITS_SECONDS = 60
"""Decisions that are older are not counted."""


class RecentWaits(NamedTuple):
    """Percentiles in milliseconds, each the wait of a request, not interpolated."""

    p50: int
    p99: int
    decisions: int


_WAITS = text(
    "SELECT percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY seconds) AS percentiles, count(*) AS decisions"
    " FROM (SELECT greatest(0, extract(epoch FROM decided_at - requested_at)) AS seconds FROM offsets"
    "  JOIN logs ON logs.id = log_id AND closed_at IS NULL, LATERAL"
    "  (SELECT requested_at, decided_at FROM requests WHERE requests.log_id = offsets.log_id"
    '   AND requests.partition = offsets.partition AND requests."offset" < next_offset'
    '   AND requests."offset" >= next_offset - :decisions AND NOT starts_with(request_id, :derived)) AS latest'
    "  WHERE decided_at > now() - make_interval(secs => :seconds)) AS waits"
)


def read(tx: Connection) -> RecentWaits | None:
    """Return the waits of the latest decisions of each partition, or None if there were none in the last minute.

    The rows are found by their offsets: no index has the time of a decision. Foreign requests are left out: their
    producers chose the time.
    """
    limits = {"decisions": _MAX_DECISIONS, "seconds": WAITS_SECONDS, "derived": DERIVED_START}
    row = tx.execute(_WAITS, limits).one()
    if not row.decisions:
        return None
    p50, p99 = (round(float(seconds) * 1000) for seconds in row.percentiles)
    return RecentWaits(p50, p99, row.decisions)
