"""Queries of a coupon report. Each reads all rows of the coupon once and counts them in the database.

A transaction at REPEATABLE READ gives all of them the same rows. PostgreSQL finds the rows by the two partial indexes
on coupon and user, or scans the table if the coupon has a large part of it.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from service.domain.coupon_report import Period, RequestCounts, SeriesPoint, Waits
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import derived_prefix
from service.store.tables import LIVE_OR_ENDED_ROWS

_OF_COUPON = f"FROM requests WHERE coupon_id = :coupon AND {LIVE_OR_ENDED_ROWS}"
_IS_FOREIGN = "starts_with(request_id, :derived)"


def opened_at(tx: Connection, coupon_id: int) -> datetime | None:
    """Return when the coupon's window opened, at its creation at the earliest; None if it has no opening."""
    query = "SELECT greatest(opens_at, created_at) FROM coupons WHERE id = :coupon AND opens_at IS NOT NULL"
    at: datetime | None = tx.execute(text(query), {"coupon": coupon_id}).scalar_one_or_none()
    return at


_COUNTS = text(
    f"SELECT state, code, {_IS_FOREIGN} AS is_foreign, count(*) AS requests,"
    " min(requested_at) AS first_requested, max(requested_at) AS last_requested,"
    f" min(decided_at) AS first_decided, max(decided_at) AS last_decided {_OF_COUPON} GROUP BY 1, 2, 3"
)


def count_requests(tx: Connection, coupon_id: int) -> RequestCounts:
    """Count the requests of a coupon by state and code."""
    groups = tx.execute(_COUNTS, _parameters(coupon_id)).all()
    by_state: dict[str, Counter[Any]] = {state: Counter() for state in RequestState}
    by_origin: Counter[bool] = Counter()
    times: dict[str, list[datetime]] = {"requested": [], RequestState.ISSUED: [], RequestState.REFUSED: []}
    for group in groups:
        by_state[group.state][group.code] += group.requests
        by_origin[group.is_foreign] += group.requests
        if not group.is_foreign:
            times["requested"] += (group.first_requested, group.last_requested)
        if group.state in times:
            times[group.state] += (group.first_decided, group.last_decided)
    return RequestCounts(
        by_origin[False],
        by_origin[True],
        by_state[RequestState.ISSUED].total(),
        {ReasonCode(code): count for code, count in sorted(by_state[RequestState.REFUSED].items())},
        {ReasonCode(code): count for code, count in sorted(by_state[RequestState.DEAD].items())},
        by_state[RequestState.RETRYING].total(),
        by_state[RequestState.STANDBY].total(),
        _period(times["requested"]),
        _period(times[RequestState.ISSUED]),
        _period([at for some in times.values() for at in some]),
    )


def _period(times: Sequence[datetime]) -> Period | None:
    return Period(min(times), max(times)) if times else None


_WAITS = text(
    "SELECT percentile_disc(ARRAY[0.5, 0.9, 0.99, 1]) WITHIN GROUP (ORDER BY"
    " greatest(0, date_part('epoch', decided_at - requested_at)))"
    f" {_OF_COUPON} AND decided_at IS NOT NULL AND NOT {_IS_FOREIGN}"
)


def waits(tx: Connection, coupon_id: int) -> Waits | None:
    """Return percentiles of the waits of accepted requests with a final state, or None if there are none.

    They are exact (percentile_disc): PostgreSQL sorts the waits, on its disk if they exceed work_mem. A wait that is
    negative, because clocks differ, counts as 0.
    """
    seconds = tx.execute(_WAITS, _parameters(coupon_id)).scalar_one()
    return None if seconds is None else Waits(*(round(wait * 1000) for wait in seconds))


_SERIES = text(
    "WITH cells AS (SELECT date_bin(:width, requested_at, 'epoch') AS requested, date_bin(:width, decided_at, 'epoch')"
    f"  AS decided, {_IS_FOREIGN} AS is_foreign, state, count(*) AS requests {_OF_COUPON} GROUP BY 1, 2, 3, 4)"
    " SELECT at, CAST(sum(sent) AS bigint) AS sent, CAST(sum(issued) AS bigint) AS issued,"
    "  CAST(sum(refused) AS bigint) AS refused FROM ("
    "  SELECT requested AS at, requests AS sent, 0 AS issued, 0 AS refused FROM cells WHERE NOT is_foreign UNION ALL"
    "  SELECT decided, 0, requests, 0 FROM cells WHERE state = 'issued' UNION ALL"
    "  SELECT decided, 0, 0, requests FROM cells WHERE state = 'refused') AS events"
    " GROUP BY at ORDER BY at"
)


def series(tx: Connection, coupon_id: int, bin_seconds: int) -> list[SeriesPoint]:
    """Count the events of each bin: accepted requests at requested_at, issued and refused ones at decided_at."""
    width = {"width": timedelta(seconds=bin_seconds)}
    return [SeriesPoint(*row) for row in tx.execute(_SERIES, {**_parameters(coupon_id), **width})]


def _parameters(coupon_id: int) -> dict[str, Any]:
    return {"coupon": coupon_id, "derived": derived_prefix(coupon_id)}
