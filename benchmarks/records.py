"""Requests as the API appends them, minted beforehand, so that appending costs little but the log's own work."""

from collections.abc import Iterable, Iterator, Sequence
from random import Random
from typing import NamedTuple

from confluent_kafka import Producer

from benchmarks.ground import IDS
from service.clock import now_ms
from service.stream.codec import FAULT_HEADER, REQUEST_ID_HEADER, encode_key, encode_value
from service.stream.topics import Topic

_BATCH = 10_000
_SETTINGS = {
    "partitioner": "murmur2_random",
    "enable.idempotence": True,
    "linger.ms": 2,
    "log_level": 0,  # a coordinator that is still loading is asked again
    "queue.buffering.max.messages": 1_000_000,
}

Headers = list[tuple[str, str | bytes | None]]


class Asked(NamedTuple):
    """A user's request, ready to be appended."""

    user_id: int
    request_id: str
    key: bytes
    value: bytes
    headers: Headers


def shuffled(count: int, first: int = 1) -> Sequence[int]:
    """So many users, in no order and the same each time: rows do not arrive sorted by user."""
    users = list(range(first, first + count))
    Random(count).shuffle(users)
    return users


def minted(coupon_id: int, users: Iterable[int], fault: str | None = None) -> Iterator[Asked]:
    """Each user's request for the coupon, with a request id of ours."""
    key = encode_key(coupon_id)
    more: Headers = [(FAULT_HEADER, fault.encode())] if fault else []
    for user_id in users:
        at_ms = now_ms()
        name = IDS.mint(coupon_id, user_id, at_ms)
        yield Asked(
            user_id, name, key, encode_value(coupon_id, user_id, at_ms), [(REQUEST_ID_HEADER, name.encode()), *more]
        )


def producer(bootstrap_servers: str) -> Producer:
    """A producer with the API's own guarantees."""
    return Producer({"bootstrap.servers": bootstrap_servers, **_SETTINGS})


def append(bootstrap_servers: str, asked: Iterable[Asked], topic: str = Topic.ISSUE_COUPON) -> None:
    """Appends all; returns once every record is acknowledged, raises AssertionError if one is not."""
    send(producer(bootstrap_servers), asked, topic)


def send(client: Producer, asked: Iterable[Asked], topic: str) -> None:
    """The same with a client that is there already."""
    for number, one in enumerate(asked, 1):
        client.produce(topic, one.value, one.key, headers=one.headers)
        if number % _BATCH == 0:
            client.poll(0)
    assert client.flush(60) == 0, "records were not acknowledged"
