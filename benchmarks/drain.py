"""How fast the issuer drains a backlog of one coupon: `python -m benchmarks.drain --requests 100000`."""

import argparse
import shutil
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Producer
from sqlalchemy import Engine, text

from service.clock import now_ms
from service.domain.request_id import RequestIds
from service.store import coupons, engine
from service.stream.codec import REQUEST_ID, encode, key_of
from service.stream.topics import Topic
from service.usecases.history import Told
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
    with ground(_DIRECTORY) as (stack, store):
        deque(fill(stack, store, wanted), maxlen=0)
        print(f"backlog of one coupon: {wanted} requests")
        stack.add_issuer("issuer-0")
        print(f"issued: {drained(store, wanted):,.0f} requests/s, from the first poll's commit to the last's")


@contextmanager
def ground(directory: Path) -> Iterator[tuple[LocalStack, Engine]]:
    """Empty parts with tables and topics, no process yet, and their database."""
    shutil.rmtree(directory, ignore_errors=True)
    with LocalStack(directory, (*PARTS, "migrate"), OWN | {"REQUEST_ID_KEYS": _KEY, "LOG_LEVEL": "warning"}) as stack:
        store = engine.build(stack.database_url, "benchmark")
        yield stack, store
        store.dispose()


def fill(stack: LocalStack, store: Engine, wanted: int) -> Iterator[Told]:
    """Makes a coupon for everyone and appends everyone's request, as the API does; yields what each would be told."""
    with store.begin() as tx:
        coupon = coupons.create(tx, "everyone", wanted, 0, None, None)
    ids = RequestIds([_KEY.encode()])
    producer = Producer(
        {"bootstrap.servers": stack.kafka_bootstrap_servers, "partitioner": "murmur2_random", "linger.ms": 20}
    )
    for user_id in range(1, wanted + 1):
        at_ms = now_ms()
        name = ids.mint(coupon.id, user_id, at_ms)
        headers = [(REQUEST_ID, name.encode())]
        producer.produce(Topic.ISSUE_COUPON, encode(coupon.id, user_id, at_ms), key_of(coupon.id), headers=headers)
        yield Told(user_id, coupon.id, "accepted", request_id=name)
        if user_id % 10_000 == 0:
            producer.flush()
    producer.flush()


def drained(store: Engine, wanted: int, within_seconds: float = _DEADLINE_SECONDS) -> float:
    """Requests per second between the first and the last commit, by the database's own record of them."""
    query = text(
        "SELECT count(*), count(*) FILTER (WHERE decided_at > first) AS later,"
        " extract(epoch FROM max(decided_at) - min(decided_at))::float8 AS seconds"
        " FROM requests, (SELECT min(decided_at) AS first FROM requests) AS began"
    )
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        with store.begin() as tx:
            count, later, seconds = tx.execute(query).one()
        if count == wanted:
            return float(later / seconds)
        time.sleep(0.2)
    raise SystemExit(f"only {count} of {wanted} were decided in {within_seconds:.0f} s")


if __name__ == "__main__":
    main()
