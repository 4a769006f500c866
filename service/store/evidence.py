"""Queries of the proof: they count rows themselves and believe no counter, index or constraint."""

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, text

_FEW = {"yield_per": 2000}


class Row(NamedTuple):
    """What the database has of one record of the log."""

    offset: int
    coupon_id: int | None
    user_id: int | None
    request_id: str | None
    state: str


_ROWS = text(
    'SELECT "offset", coupon_id, user_id, request_id, state FROM requests'
    " WHERE log_id = :log AND partition = :partition"
    " UNION ALL "
    "SELECT \"offset\", NULL, NULL, NULL, 'poison' FROM dead_letters"
    " WHERE log_id = :log AND partition = :partition AND code = 'poison' AND request_id IS NULL"
    " ORDER BY 1"
)


def rows(tx: Connection, log: int, partition: int) -> Iterator[Row]:
    """Every row that stands for a record of the partition, in offset order, a few at a time."""
    found = tx.execute(_ROWS, {"log": log, "partition": partition}, execution_options=_FEW)
    return (Row(*row) for row in found)


def request_ids(tx: Connection, log: int) -> Iterator[str]:
    """Every decided request's id, a few at a time."""
    query = text("SELECT request_id FROM requests WHERE log_id = :log")
    return (row[0] for row in tx.execute(query, {"log": log}, execution_options=_FEW))


def _numbers(tx: Connection, query: str, log: int) -> dict[str, int]:
    return dict(tx.execute(text(query), {"log": log}).mappings().one())


def over_issued(tx: Connection, log: int) -> dict[str, int]:
    """Coupons with more issued or held than their quantity, or whose counters differ from their rows."""
    return _numbers(
        tx,
        """
        SELECT count(*) AS coupons, coalesce(sum(counted.issued), 0)::bigint AS issued,
               count(*) FILTER (WHERE coalesce(counted.issued + counted.held, 0) > coupons.quantity) AS over_issued,
               count(*) FILTER (WHERE coalesce(counted.issued, 0) <> coupons.issued
                                   OR coalesce(counted.held, 0) <> coupons.held) AS miscounted
        FROM coupons LEFT JOIN (
            SELECT coupon_id, count(*) FILTER (WHERE state = 'issued') AS issued,
                   count(*) FILTER (WHERE state = 'retrying') AS held
            FROM requests WHERE :log IS NOT NULL GROUP BY coupon_id) AS counted ON counted.coupon_id = coupons.id
        """,
        log,
    )


def twice(tx: Connection, log: int) -> dict[str, int]:
    """Users with more than one live request for a coupon, ids with more than one row, duplicates of nothing."""
    return _numbers(
        tx,
        """
        SELECT (SELECT count(*) FROM (SELECT FROM requests WHERE state IN ('issued', 'retrying', 'standby')
                GROUP BY coupon_id, user_id HAVING count(*) > 1) AS users) AS users_with_two,
               (SELECT count(*) FROM (SELECT FROM requests WHERE log_id = :log
                GROUP BY coupon_id, user_id, request_id HAVING count(*) > 1) AS ids) AS request_ids_with_two,
               (SELECT count(*) FROM requests AS later WHERE log_id = :log AND code = 'duplicate' AND NOT EXISTS (
                   SELECT FROM requests AS first WHERE first.coupon_id = later.coupon_id
                   AND first.user_id = later.user_id
                   AND (first.log_id, first."offset") < (later.log_id, later."offset")
                   AND first.code IS DISTINCT FROM 'duplicate')) AS duplicates_of_nothing
        """,
        log,
    )


def disorder(tx: Connection, log: int) -> dict[str, int]:
    """Sequences with gaps; sequences out of offset order where nothing was retried; early or late "sold out"."""
    return _numbers(
        tx,
        """
        WITH ranked AS (
            SELECT coupon_id, log_id, "offset", sequence,
                   lag(sequence) OVER (PARTITION BY coupon_id ORDER BY log_id, "offset") AS before
            FROM requests WHERE state = 'issued'
        ), disturbed AS (
            SELECT DISTINCT coupon_id FROM requests WHERE attempts > 1 OR state IN ('retrying', 'standby', 'dead')
        ), last_issued AS (
            SELECT coupon_id, max((log_id, "offset")) AS last, count(*) AS issued FROM ranked GROUP BY coupon_id
        ), sold_out AS (
            SELECT coupon_id, min((log_id, "offset")) AS first, count(*) AS refused FROM requests
            WHERE :log IS NOT NULL AND state = 'refused' AND code = 'sold_out' GROUP BY coupon_id
        )
        SELECT (SELECT count(*) FROM (SELECT FROM ranked GROUP BY coupon_id
                HAVING min(sequence) <> 1 OR max(sequence) <> count(*) OR count(DISTINCT sequence) <> count(*)) AS gaps
               ) AS coupons_with_gaps,
               (SELECT count(*) FROM ranked WHERE before > sequence
                AND coupon_id NOT IN (SELECT coupon_id FROM disturbed)) AS out_of_order,
               (SELECT count(*) FROM disturbed) AS coupons_with_retries,
               (SELECT coalesce(sum(refused), 0)::bigint FROM sold_out) AS refused_sold_out,
               (SELECT count(*) FROM sold_out JOIN coupons ON coupons.id = coupon_id
                LEFT JOIN last_issued USING (coupon_id)
                WHERE last IS NULL OR last > first OR last_issued.issued < coupons.quantity) AS sold_out_wrongly
        """,
        log,
    )


def in_flight(tx: Connection, log: int) -> dict[str, int]:
    """Requests by where they stand; dead ones without a dead letter."""
    return _numbers(
        tx,
        """
        SELECT count(*) FILTER (WHERE state = 'issued') AS issued, count(*) FILTER (WHERE state = 'refused') AS refused,
               count(*) FILTER (WHERE state = 'dead') AS dead,
               count(*) FILTER (WHERE state IN ('retrying', 'standby')) AS retrying_or_standby,
               count(*) FILTER (WHERE state = 'dead' AND NOT EXISTS (
                   SELECT FROM dead_letters AS letter WHERE letter.log_id = requests.log_id
                   AND letter.partition = requests.partition AND letter."offset" = requests."offset")
               ) AS dead_without_letter
        FROM requests WHERE log_id = :log
        """,
        log,
    )
