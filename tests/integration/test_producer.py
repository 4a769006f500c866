"""Appending to the log: where a record is stored, and the outcome when it is not."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from service.config import Settings
from service.domain.errors import NotProduced, ProduceUnconfirmed, Unavailable
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream import clients, log_reader
from service.stream.codec import REQUEST_ID_HEADER, RecordReader, encode_key, encode_value
from service.stream.partitioner import partition_of
from service.stream.producer import Headers, ProduceOutcome, RequestProducer
from service.stream.topics import Topic
from tests.builders import AT_MS, TOPIC_ID

Scenario = Callable[[RequestProducer], Coroutine[Any, Any, Any]]
AWAY = {"kafka_bootstrap_servers": "127.0.0.1:9", "produce_timeout_ms": 200}


def _run(settings: Settings, scenario: Scenario) -> Any:
    """Run a scenario with a producer that is closed after it."""

    async def run() -> Any:
        producer = RequestProducer(clients.build_producer(settings))
        try:
            return await scenario(producer)
        finally:
            producer.close(1)

    return asyncio.run(run())


async def _append(producer: RequestProducer, key: bytes, value: bytes, headers: Headers | None = None) -> LogPosition:
    """Return the record's position, or raise the outcome."""
    delivered: asyncio.Future[ProduceOutcome] = asyncio.get_running_loop().create_future()
    producer.produce(-1, key, value, headers or [], delivered.set_result)
    outcome = await delivered
    if isinstance(outcome, LogPosition):
        return outcome
    raise outcome


def test_a_record_is_stored_on_the_computed_partition(settings: Settings) -> None:
    """P3: the partitioners of librdkafka, of the Java client and of this service agree, for ids of every length."""
    coupon_ids = [*range(1, 120), *(10**power + power for power in range(3, 19)), 2**63 - 1]

    async def append_all(producer: RequestProducer) -> list[LogPosition]:
        return await asyncio.gather(
            *(_append(producer, encode_key(coupon_id), encode_value(coupon_id, 1, AT_MS)) for coupon_id in coupon_ids)
        )

    positions: list[LogPosition] = _run(settings, append_all)

    assert [position.partition for position in positions] == [
        partition_of(coupon_id, settings.topic_partitions) for coupon_id in coupon_ids
    ]


def test_a_record_is_read_as_it_was_written(settings: Settings, ids: RequestIds, reader: RecordReader) -> None:
    """The outcome is the record's position, and the request id in its header is accepted."""
    request_id = ids.mint(42, 7, AT_MS)

    async def append(producer: RequestProducer) -> LogPosition:
        return await _append(
            producer, encode_key(42), encode_value(42, 7, AT_MS), [(REQUEST_ID_HEADER, request_id.encode())]
        )

    position: LogPosition = _run(settings, append)
    (raw,) = log_reader.read_records(settings, Topic.ISSUE_COUPON, position.partition, position.offset)

    request = reader.decode(raw, TOPIC_ID).request
    assert request is not None
    assert request[:5] == (position, 42, 7, request_id, AT_MS)
    assert request.accepted
    assert request.appended_at_ms > AT_MS


def test_a_record_that_is_too_large_was_not_sent(settings: Settings) -> None:
    """A definite failure differs from an unknown outcome, so that the seat can be released."""
    with pytest.raises(NotProduced):
        _run(settings, lambda producer: _append(producer, b"1", b"x" * 2_000_000))


def test_a_record_that_does_not_fit_into_the_queue_was_not_sent(settings: Settings) -> None:
    """While the broker is away the queue fills; a record that does not fit is a definite failure."""

    async def flood(producer: RequestProducer) -> Counter[type]:
        appends = (_append(producer, b"1", b"x") for _ in range(50_100))
        return Counter(map(type, await asyncio.gather(*appends, return_exceptions=True)))

    outcomes = _run(settings.model_copy(update=AWAY | {"produce_timeout_ms": 4000}), flood)

    assert outcomes == {ProduceUnconfirmed: 50_000, NotProduced: 100}


def test_without_a_broker_the_outcome_is_unknown(settings: Settings) -> None:
    """P5: without a delivery report the record may be in the log."""
    away = settings.model_copy(update=AWAY)

    with pytest.raises(ProduceUnconfirmed):
        _run(away, lambda producer: _append(producer, b"1", b"x"))


def test_a_producer_without_acknowledgements_is_unavailable(settings: Settings) -> None:
    """Readiness sends no record: it uses the acknowledgements of those that wait."""

    async def waiting(producer: RequestProducer) -> None:
        producer.require_acknowledging(0)  # nothing waits
        appended = asyncio.ensure_future(_append(producer, b"1", b"x"))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match=r"no record was acknowledged for .* s, and 1 wait"):
            producer.require_acknowledging(0)
        producer.require_acknowledging(5)
        await asyncio.wait([appended])
        producer.require_acknowledging(0)

    _run(settings, waiting)
    _run(settings.model_copy(update=AWAY), waiting)
