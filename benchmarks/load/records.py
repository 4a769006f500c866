"""Requests appended to Kafka directly, as the API appends them but without the API.

Records are built beforehand, so that the time of appending is Kafka's and librdkafka's.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import NamedTuple

from confluent_kafka import Producer

from benchmarks.environment import IDS
from benchmarks.load.http_load import ArrivalSchedule
from service.clock import now_ms
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, encode_key, encode_value
from service.stream.topics import Topic

_POLL_INTERVAL_RECORDS = 10_000
_FLUSH_TIMEOUT_SECONDS = 60
_TICK_SECONDS = 0.01
_SETTINGS = {
    "partitioner": "murmur2_random",
    "enable.idempotence": True,
    "linger.ms": 2,
    "log_level": 0,  # librdkafka retries while a coordinator is loading, and would log it
    "queue.buffering.max.messages": 1_000_000,
}

Headers = list[tuple[str, str | bytes | None]]
DueTimes = list[tuple[int, float]]
"""Users and when their requests were due, in seconds since 1970."""


class RequestRecord(NamedTuple):
    """A user's request as a Kafka record."""

    user_id: int
    request_id: str
    key: bytes
    value: bytes
    headers: Headers


def shuffled_users(count: int, first: int = 1) -> Sequence[int]:
    """Return `count` users in a random order that is the same each time: rows do not arrive sorted by user."""
    users = list(range(first, first + count))
    Random(count).shuffle(users)
    return users


def build_records(coupon_id: int, users: Iterable[int], fault: str | None = None) -> Iterator[RequestRecord]:
    """Yield each user's request for the coupon, with a minted request id and an optional fault header."""
    key = encode_key(coupon_id)
    fault_headers: Headers = [(FAULT_HEADER, fault.encode())] if fault else []
    for user_id in users:
        at_ms = now_ms()
        request_id = IDS.mint(coupon_id, user_id, at_ms)
        headers: Headers = [(REQUEST_ID_HEADER, request_id.encode()), *fault_headers]
        yield RequestRecord(user_id, request_id, key, encode_value(coupon_id, user_id, at_ms), headers)


def build_producer(bootstrap_servers: str) -> Producer:
    """Build a producer with the same guarantees as the API's."""
    return Producer({"bootstrap.servers": bootstrap_servers, **_SETTINGS})


def append(bootstrap_servers: str, records: Iterable[RequestRecord], topic: str = Topic.ISSUE_COUPON) -> None:
    """Append all records with a new producer; see `send`."""
    send(build_producer(bootstrap_servers), records, topic)


def send(producer: Producer, records: Iterable[RequestRecord], topic: str) -> None:
    """Append all records and wait for their acknowledgements; raise AssertionError if one is missing."""
    for number, record in enumerate(records, 1):
        producer.produce(topic, record.value, record.key, headers=record.headers)
        if number % _POLL_INTERVAL_RECORDS == 0:
            producer.poll(0)
    assert producer.flush(_FLUSH_TIMEOUT_SECONDS) == 0, "records were not acknowledged"


@contextmanager
def append_at_rate(bootstrap_servers: str, coupon_id: int, rate: float, max_seconds: float) -> Iterator[DueTimes]:
    """Append requests for one coupon at `rate` per second while the block runs, for `max_seconds` at most.

    The yielded list is complete when the block has ended.
    """
    records = list(build_records(coupon_id, shuffled_users(round(rate * max_seconds))))
    due_times: DueTimes = []
    stop = threading.Event()
    thread = threading.Thread(target=_append_until, args=(stop, bootstrap_servers, records, rate, due_times))
    thread.start()
    try:
        yield due_times
    finally:
        stop.set()
        thread.join()


def _append_until(
    stop: threading.Event, bootstrap_servers: str, records: Sequence[RequestRecord], rate: float, due_times: DueTimes
) -> None:
    producer, began = build_producer(bootstrap_servers), time.time()
    schedule = ArrivalSchedule(rate, len(records))
    while not stop.wait(_TICK_SECONDS):
        due = records[len(due_times) : schedule.due_count(time.time() - began)]
        for record in due:
            producer.produce(Topic.ISSUE_COUPON, record.value, record.key, headers=record.headers)
        producer.poll(0)
        due_times += [(record.user_id, began + schedule.due_at(n)) for n, record in enumerate(due, len(due_times))]
    assert producer.flush(_FLUSH_TIMEOUT_SECONDS) == 0, "records were not acknowledged"
