"""How fast the issuer drains a backlog of one coupon: `python -m benchmarks.drain --requests 100000`."""

import argparse
import shutil
import time
from pathlib import Path

from confluent_kafka import Producer
from sqlalchemy import Engine, text

from service.bootstrap import now_ms
from service.domain.request_id import RequestIds
from service.store import coupons, engine
from service.stream.codec import REQUEST_ID, encode, key_of
from service.stream.topics import Topic
from stack.local import LocalStack
from stack.plan import PARTS
from stack.settings import OWN

_DIRECTORY = Path(".stack/drain")
_KEY = "benchmark-" * 3
_DEADLINE_SECONDS = 120.0


def main() -> None:
    """Fills the topic while no issuer runs, starts one, and times from the first decided request to the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    wanted = parser.parse_args().requests
    shutil.rmtree(_DIRECTORY, ignore_errors=True)
    with LocalStack(_DIRECTORY, (*PARTS, "migrate"), OWN | {"REQUEST_ID_KEYS": _KEY, "LOG_LEVEL": "warning"}) as stack:
        store = engine.build(stack.database_url, "benchmark")
        fill(stack, store, wanted)
        print(f"backlog of one coupon: {wanted} requests")
        stack.add_issuer("issuer-0")
        print(f"issued: {drained(store, wanted):,.0f} requests/s, from the first poll's commit to the last's")
        store.dispose()


def fill(stack: LocalStack, store: Engine, wanted: int) -> None:
    """Makes a coupon for everyone and appends everyone's request, as the API does."""
    with store.begin() as tx:
        coupon = coupons.create(tx, "everyone", wanted, 0, None, None)
    ids = RequestIds([_KEY.encode()])
    producer = Producer(
        {"bootstrap.servers": stack.kafka_bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 20}
    )
    for user_id in range(1, wanted + 1):
        at_ms = now_ms()
        headers = [(REQUEST_ID, ids.mint(coupon.id, user_id, at_ms).encode())]
        producer.produce(Topic.ISSUE_COUPON, encode(coupon.id, user_id, at_ms), key_of(coupon.id), headers=headers)
        if user_id % 10_000 == 0:
            producer.flush()
    producer.flush()


def drained(store: Engine, wanted: int) -> float:
    """Requests per second between the first and the last commit, by the database's own record of them."""
    query = text(
        "SELECT count(*), count(*) FILTER (WHERE decided_at > first) AS later,"
        " extract(epoch FROM max(decided_at) - min(decided_at))::float8 AS seconds"
        " FROM requests, (SELECT min(decided_at) AS first FROM requests) AS began"
    )
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with store.begin() as tx:
            count, later, seconds = tx.execute(query).one()
        if count == wanted:
            return float(later / seconds)
        time.sleep(0.2)
    raise SystemExit(f"only {count} of {wanted} were decided in {_DEADLINE_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
