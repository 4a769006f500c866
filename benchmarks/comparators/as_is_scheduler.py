"""The replaced system's scheduler: `python -m benchmarks.comparators.as_is_scheduler SECONDS CHUNK LOG`.

It wakes at every multiple of so many seconds, looks at every queue, and issues a chunk of each in one transaction;
chunk 0 takes all there is. As its advocates would write it: one connection kept, statements prepared, one INSERT for
the whole chunk, and a queue's members leave it only after the commit.
"""

import os
import signal
import sys
import time
from threading import Event
from typing import Any

import psycopg
from redis import Redis

from benchmarks.comparators.as_is import COUPONS, issued_key, queue_key

_LOCK = "SELECT issued, quantity FROM coupons WHERE id = %s FOR NO KEY UPDATE"
_INSERT = (
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, sequence, attempts,'
    " requested_at, decided_at)"
    " SELECT %(log)s, %(coupon)s, %(issued)s + place, %(coupon)s, uid, %(coupon)s || '-' || uid, 'issued',"
    "  %(issued)s + place, 1, to_timestamp(at_ms / 1000), clock_timestamp()"
    " FROM (SELECT uid, at_ms, row_number() OVER (ORDER BY rank) AS place"
    "  FROM unnest(%(users)s::bigint[], %(times)s::float8[]) WITH ORDINALITY AS asked(uid, at_ms, rank)"
    "  WHERE NOT EXISTS (SELECT FROM requests WHERE coupon_id = %(coupon)s AND user_id = uid"
    "   AND state IN ('issued', 'retrying', 'standby'))) AS sound"
    " WHERE place <= %(quantity)s - %(issued)s"
)


def issue_chunks(redis: "Redis", database: "psycopg.Connection", log_id: int, chunk: int) -> None:
    """One chunk of every queue that has somebody waiting."""
    for coupon_id in map(int, redis.smembers(COUPONS)):
        waiting: Any = redis.zrange(queue_key(coupon_id), 0, chunk - 1, withscores=True)
        if waiting:
            users = [int(user) for user, _ in waiting]
            _issue(database, log_id, coupon_id, users, [at_ms for _, at_ms in waiting])
            with redis.pipeline(transaction=True) as both:
                both.sadd(issued_key(coupon_id), *users)
                both.zrem(queue_key(coupon_id), *users)
                both.execute()


def _issue(
    database: "psycopg.Connection", log_id: int, coupon_id: int, users: list[int], times_ms: list[float]
) -> None:
    with database.transaction():
        locked = database.execute(_LOCK, [coupon_id]).fetchone()
        assert locked
        issued, quantity = locked
        values = {"log": log_id, "coupon": coupon_id, "users": users, "times": times_ms}
        database.execute(_INSERT, values | {"issued": issued, "quantity": quantity})


def main() -> None:
    """Wakes and issues until told to stop."""
    period, chunk, log = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    redis = Redis.from_url(os.environ["REDIS_URL"])
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0) as database:
        print("waiting for the next run", flush=True)
        while not stopping.wait(period - time.time() % period):
            issue_chunks(redis, database, log, chunk)


if __name__ == "__main__":
    main()
