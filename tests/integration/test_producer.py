"""Appending to the log: where a record lands, and what is known when it does not."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.config import Settings
from service.domain.errors import Unavailable
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream import clients, log_reader
from service.stream.codec import REQUEST_ID_HEADER, RecordReader, encode_key, encode_value
from service.stream.partitioner import partition_of
from service.stream.producer import Headers, NotProduced, ProduceOutcome, ProduceUnconfirmed, RequestProducer
from service.stream.topics import Topic
from tests.builders import AT_MS

Writing = Callable[[RequestProducer], Coroutine[Any, Any, Any]]
AWAY = {"kafka_bootstrap_servers": "127.0.0.1:9", "produce_timeout_ms": 200}


def _write(settings: Settings, writing: Writing) -> Any:
    """Runs a coroutine with a writer that is closed after it."""

    async def run() -> Any:
        writer = RequestProducer(clients.build_producer(settings))
        try:
            return await writing(writer)
        finally:
            writer.close(1)

    return asyncio.run(run())


async def _append(writer: RequestProducer, key: bytes, value: bytes, headers: Headers | None = None) -> LogPosition:
    """The record's place, or the error that its writer heard of."""
    heard: asyncio.Future[ProduceOutcome] = asyncio.get_running_loop().create_future()
    writer.produce(-1, key, value, headers or [], heard.set_result)
    outcome = await heard
    if isinstance(outcome, LogPosition):
        return outcome
    raise outcome


def test_a_coupon_lands_on_the_partition_we_compute(settings: Settings) -> None:
    """P3: librdkafka's partitioner, Java's and ours agree, for ids of every length."""
    coupon_ids = [*range(1, 120), *(10**power + power for power in range(3, 19)), 2**63 - 1]

    async def append_all(writer: RequestProducer) -> list[LogPosition]:
        return await asyncio.gather(
            *(_append(writer, encode_key(one), encode_value(one, 1, AT_MS)) for one in coupon_ids)
        )

    places: list[LogPosition] = _write(settings, append_all)

    assert [at.partition for at in places] == [partition_of(one, settings.topic_partitions) for one in coupon_ids]


def test_what_was_appended_is_read_as_it_was_written(settings: Settings, ids: RequestIds, reader: RecordReader) -> None:
    """Step 3: the place in the answer is the record's place, and the id in its header is believed."""
    name = ids.mint(42, 7, AT_MS)

    async def append(writer: RequestProducer) -> LogPosition:
        return await _append(writer, encode_key(42), encode_value(42, 7, AT_MS), [(REQUEST_ID_HEADER, name.encode())])

    place: LogPosition = _write(settings, append)
    (raw,) = log_reader.read_records(settings, Topic.ISSUE_COUPON, place.partition, place.offset)

    request = reader.decode(raw).request
    assert request is not None
    assert request[:5] == (place, 42, 7, name, AT_MS)
    assert request.accepted
    assert request.appended_at_ms > AT_MS


def test_what_is_too_large_certainly_was_not_sent(settings: Settings) -> None:
    """Step 3: a definite failure is told from an unknown outcome, so that the seat can go back."""
    with pytest.raises(NotProduced):
        _write(settings, lambda writer: _append(writer, b"1", b"x" * 2_000_000))


def test_a_full_queue_certainly_was_not_sent(settings: Settings) -> None:
    """Step 3: while the broker is away the queue fills, and what does not fit any more is a definite failure."""

    async def flood(writer: RequestProducer) -> Counter[type]:
        appends = (_append(writer, b"1", b"x") for _ in range(50_100))
        return Counter(map(type, await asyncio.gather(*appends, return_exceptions=True)))

    outcomes = _write(settings.model_copy(update=AWAY | {"produce_timeout_ms": 4000}), flood)

    assert outcomes == {ProduceUnconfirmed: 50_000, NotProduced: 100}


def test_a_broker_that_is_gone_leaves_the_outcome_unknown(settings: Settings) -> None:
    """Step 3: nobody said whether the record is in the log, so nobody claims that it is not."""
    away = settings.model_copy(update=AWAY)

    with pytest.raises(ProduceUnconfirmed):
        _write(away, lambda writer: _append(writer, b"1", b"x"))


def test_a_broker_that_is_gone_cannot_be_reached(settings: Settings) -> None:
    """Section 4: readiness tells whether the log answers."""

    async def reach(writer: RequestProducer) -> None:
        writer.require_reachable(0.5)

    _write(settings, reach)
    with pytest.raises(Unavailable, match="Kafka is unavailable"):
        _write(settings.model_copy(update=AWAY), reach)
