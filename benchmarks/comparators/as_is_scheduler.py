"""The AS-IS system's scheduler: `python -m benchmarks.comparators.as_is_scheduler PERIOD_SECONDS CHUNK LOG_ID`.

It wakes at every multiple of the period, reads every queue and issues one chunk of each in one transaction; chunk 0
takes the whole queue. It is a good implementation of that design: one kept connection, prepared statements, one INSERT
for the whole chunk. Users are removed from a queue only after the commit.
"""

import os
import signal
import sys
import time
from threading import Event
from typing import Any

import psycopg
from redis import Redis

from benchmarks.comparators.as_is_queue import COUPONS_KEY, issued_key, queue_key

_LOCK_COUPON = "SELECT issued, quantity FROM coupons WHERE id = %s FOR NO KEY UPDATE"
_INSERT = (
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, sequence, attempts,'
    " requested_at, decided_at)"
    " SELECT %(log)s, %(coupon)s, %(issued)s + row_no, %(coupon)s, uid, %(coupon)s || '-' || uid, 'issued',"
    "  %(issued)s + row_no, 1, to_timestamp(at_ms / 1000), clock_timestamp()"
    " FROM (SELECT uid, at_ms, row_number() OVER (ORDER BY rank) AS row_no"
    "  FROM unnest(%(users)s::bigint[], %(times)s::float8[]) WITH ORDINALITY AS queued(uid, at_ms, rank)"
    "  WHERE NOT EXISTS (SELECT FROM requests WHERE coupon_id = %(coupon)s AND user_id = uid"
    "   AND state IN ('issued', 'retrying', 'standby'))) AS eligible"
    " WHERE row_no <= %(quantity)s - %(issued)s"
)


def issue_chunks(redis: "Redis", database: "psycopg.Connection", log_id: int, chunk: int) -> None:
    """Issue one chunk of every queue that is not empty."""
    for coupon_id in map(int, redis.smembers(COUPONS_KEY)):
        waiting: Any = redis.zrange(queue_key(coupon_id), 0, chunk - 1, withscores=True)
        if waiting:
            users = [int(user) for user, _ in waiting]
            _issue(database, log_id, coupon_id, users, [at_ms for _, at_ms in waiting])
            with redis.pipeline(transaction=True) as pipeline:
                pipeline.sadd(issued_key(coupon_id), *users)
                pipeline.zrem(queue_key(coupon_id), *users)
                pipeline.execute()


def _issue(
    database: "psycopg.Connection", log_id: int, coupon_id: int, users: list[int], times_ms: list[float]
) -> None:
    """Issue the coupon to the users, in their order, up to its quantity."""
    with database.transaction():
        coupon = database.execute(_LOCK_COUPON, [coupon_id]).fetchone()
        assert coupon
        issued, quantity = coupon
        values = {"log": log_id, "coupon": coupon_id, "users": users, "times": times_ms}
        database.execute(_INSERT, values | {"issued": issued, "quantity": quantity})


def main() -> None:
    """Run the scheduler until SIGTERM or SIGINT."""
    period_seconds, chunk, log_id = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    stopping = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    redis = Redis.from_url(os.environ["REDIS_URL"])
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, prepare_threshold=0) as database:
        print("waiting for the next run", flush=True)
        while not stopping.wait(period_seconds - time.time() % period_seconds):
            issue_chunks(redis, database, log_id, chunk)


if __name__ == "__main__":
    main()
