"""Rows of earlier coupons: millions of them as fast as the server inserts, and look-ups of some as a client does."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from random import Random
from statistics import median

import psycopg

from benchmarks.experiments.acts import new_log
from benchmarks.ground import IDS, Ground

LOOK_UPS = 500
_LOG = "earlier"
_COUPON_ROWS = 100_000
_AT_ONCE = 2
_FILL = (
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, sequence, attempts,'
    " requested_at, decided_at) SELECT %(log)s, 0, %(first)s + n, %(coupon)s,"
    "  1 + mod(n * 7919, %(rows)s), lpad(%(coupon)s || '-' || n, 60, '0'), 'issued', n, 1, now(), now()"
    " FROM generate_series(1, %(rows)s) AS n"
)
_SOME = 'SELECT "offset", coupon_id, user_id FROM requests WHERE log_id = %s AND partition = 0 AND "offset" = ANY(%s)'
_NAME = 'UPDATE requests SET request_id = %s WHERE log_id = %s AND partition = 0 AND "offset" = %s'


def fill(ground: Ground, rows: int) -> list[str]:
    """Fills the table up to so many rows, of earlier coupons; request ids from all over it, in no order.

    As the server itself inserts fastest: most rows have an id that only looks like one of the API's.
    """
    log = new_log(ground, _LOG)
    with psycopg.connect(ground.stack.database_url, autocommit=True) as connection:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(partial(_insert, ground, log), range(_rows(connection), rows, _COUPON_ROWS)))
        names = _name_some(connection, log, rows)
        connection.execute("VACUUM ANALYZE requests")
        connection.execute("CHECKPOINT")
    return names


def _insert(ground: Ground, log_id: int, first: int) -> None:
    """A coupon's rows, in a transaction of their own."""
    values = {"log": log_id, "first": first, "coupon": ground.coupon(_COUPON_ROWS), "rows": _COUPON_ROWS}
    with psycopg.connect(ground.stack.database_url) as connection:
        connection.execute(_FILL, values)


def _name_some(connection: "psycopg.Connection", log_id: int, rows: int) -> list[str]:
    offsets = Random(rows).sample(range(rows), min(2 * LOOK_UPS, rows))
    named = [
        (IDS.mint(coupon_id, user_id, 0), log_id, offset)
        for offset, coupon_id, user_id in connection.execute(_SOME, [log_id, offsets]).fetchall()
    ]
    connection.cursor().executemany(_NAME, named)
    return [name for name, *_ in named[:LOOK_UPS]]


def _rows(connection: "psycopg.Connection") -> int:
    found = connection.execute("SELECT count(*) FROM requests").fetchone()
    assert found
    return int(found[0])


def look_up_ms(port: int, request_ids: list[str]) -> float:
    """Median milliseconds of `GET /issuances/{request_id}`, one after the other over one connection."""
    connection = HTTPConnection("127.0.0.1", port)
    spent = []
    for request_id in request_ids:
        began = time.perf_counter()
        connection.request("GET", f"/issuances/{request_id}")
        answer = connection.getresponse()
        assert b'"issued"' in answer.read(), f"{request_id} was answered {answer.status}"
        spent.append(time.perf_counter() - began)
    connection.close()
    return median(spent) * 1000
