"""Backfill of issued requests for past coupons: millions of rows, inserted as fast as PostgreSQL can."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random

import psycopg

from benchmarks.environment import IDS, Environment, create_closed_log

_LOG_NAME = "backfill"
_ROWS_PER_COUPON = 100_000
_CONNECTIONS = 2
_INSERT = (
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, sequence, attempts,'
    " requested_at, decided_at) SELECT %(log)s, 0, %(first)s + n, %(coupon)s,"
    "  1 + mod(n * 7919, %(rows)s), lpad(%(coupon)s || '-' || n, 60, '0'), 'issued', n, 1, now(), now()"
    " FROM generate_series(1, %(rows)s) AS n"
)
_SELECT = 'SELECT "offset", coupon_id, user_id FROM requests WHERE log_id = %s AND partition = 0 AND "offset" = ANY(%s)'
_SET_REQUEST_ID = 'UPDATE requests SET request_id = %s WHERE log_id = %s AND partition = 0 AND "offset" = %s'


def backfill(environment: Environment, rows: int, sample: int) -> list[str]:
    """Fill the table `requests` up to `rows`; return `sample` request ids from all over it, in random order.

    The server generates the rows. Each row has a placeholder request id; twice the sample gets valid ids, for look-ups
    over HTTP.
    """
    with environment.store.begin() as tx:
        log_id = create_closed_log(tx, _LOG_NAME)
    with psycopg.connect(environment.stack.admin_database_url, autocommit=True) as connection:
        count = connection.execute("SELECT count(*) FROM requests").fetchone()
        assert count
        with ThreadPoolExecutor(_CONNECTIONS) as pool:
            list(pool.map(partial(_insert_coupon, environment, log_id), range(int(count[0]), rows, _ROWS_PER_COUPON)))
        request_ids = _mint_request_ids(connection, log_id, rows, sample)
        connection.execute("VACUUM ANALYZE requests")
        connection.execute("CHECKPOINT")
    return request_ids


def _insert_coupon(environment: Environment, log_id: int, first_offset: int) -> None:
    """Insert one coupon's rows in a transaction of their own."""
    coupon_id = environment.create_coupon(_ROWS_PER_COUPON)
    values = {"log": log_id, "first": first_offset, "coupon": coupon_id, "rows": _ROWS_PER_COUPON}
    with psycopg.connect(environment.stack.admin_database_url) as connection:
        connection.execute(_INSERT, values)


def _mint_request_ids(connection: "psycopg.Connection", log_id: int, rows: int, sample: int) -> list[str]:
    """Give a random sample of the rows request ids that the API can verify."""
    offsets = Random(rows).sample(range(rows), min(2 * sample, rows))
    minted = [
        (IDS.mint(coupon_id, user_id, 0), log_id, offset)
        for offset, coupon_id, user_id in connection.execute(_SELECT, [log_id, offsets]).fetchall()
    ]
    connection.cursor().executemany(_SET_REQUEST_ID, minted)
    return [request_id for request_id, *_ in minted[:sample]]
