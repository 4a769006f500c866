"""Requests on their way to the log: cancelling one wait harms neither the request nor the other waits."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.config import Settings
from service.domain.errors import NotProduced, ProduceUnconfirmed, Unavailable
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.gate.async_gate import Admission, AsyncGate, SeatRequest
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from service.log_events import LogEvent
from service.stream import clients, log_reader
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.producer import RequestProducer
from service.stream.topics import Topic
from service.usecases.append_tracker import AppendTracker, PendingRequest
from service.usecases.backlog import Backlog
from tests.builders import AT_MS, PARTITIONS, TOPIC_ID, coupon
from tests.gate_client import GateAt, seat

#: larger than a record may be, so that the producer refuses it before anything is sent
TOO_LARGE = "x" * 2_000_000


class Sent(PendingRequest):
    """A request whose caller has a future for the outcome: its position, or the error."""

    def __init__(self, user_id: int, request_id: str = "", fault: str | None = None) -> None:
        super().__init__(1, user_id, fault)
        self.request_id = request_id or f"request-of-{user_id}"
        self.requested_at_ms = AT_MS
        self.answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    def on_accepted(self, position: int | None) -> None:
        """Set the position."""
        if not self.answer.done():
            self.answer.set_result(position)

    def on_failed(self, error: Exception) -> None:
        """Set the error."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Parts(NamedTuple):
    """The parts under test, on real services."""

    gate: AsyncGate
    appends: AppendTracker


Scenario = Callable[[Parts], Coroutine[Any, Any, Any]]


@pytest.fixture
def run(settings: Settings, gate_admin: GateAdmin, redis: Redis) -> Callable[..., Any]:
    """Run a scenario with a gate of ten seats: `run(scenario, setting=value)`."""
    redis.script_flush()
    gate_admin.fill(coupon(), [])

    def run_scenario(scenario: Scenario, **changed_settings: Any) -> Any:
        async def scenario_with_parts() -> Any:
            async with _open_parts(settings.model_copy(update=changed_settings)) as parts:
                return await scenario(parts)

        return asyncio.run(scenario_with_parts())

    return run_scenario


@asynccontextmanager
async def _open_parts(settings: Settings) -> AsyncIterator[Parts]:
    async with AsyncRedis.from_url(settings.redis_url) as redis:
        producer = RequestProducer(clients.build_producer(settings))
        gate = GateAt(redis)
        backlog, place = Backlog(0, int), settings.request_id_in
        yield Parts(gate, AppendTracker(gate, producer, settings.topic_partitions, backlog, place))
        producer.close(1)


async def _admit(parts: Parts, request: SeatRequest) -> Admission:
    """Send the request to the gate, with what was acknowledged before."""
    acknowledged = parts.appends.take_acknowledged()
    try:
        others, *_ = await parts.gate.admit([request], acknowledged)
    except Unavailable as error:
        parts.appends.forget_lost(acknowledged, error)
        raise
    parts.appends.forget_soon(acknowledged)
    return others.get(0, Admission(Verdict.ADMITTED, request.request_id))


async def _until_forgotten(parts: Parts, request_id: str) -> None:
    """Wait until the gate's update has succeeded or failed and the entry has been removed."""
    while parts.appends.find(request_id) is not None:  # noqa: ASYNC110  # there is no event for it
        await asyncio.sleep(0.01)


def test_every_wait_gets_the_same_outcome(run: Callable[..., Any]) -> None:
    """P2: the first request and its repeats get one outcome, also a repeat that comes after it."""

    async def scenario(parts: Parts) -> list[bool]:
        first = Sent(1)
        parts.appends.start(first, {})
        early = [asyncio.create_task(first.is_acknowledged()) for _ in range(2)]
        await first.answer
        return [await early[0], await early[1], await first.is_acknowledged()]

    assert run(scenario) == [True] * 3


@pytest.mark.parametrize(("place", "header_count"), [("header", 1), ("value", 0), ("both", 1)])
def test_the_request_id_is_written_where_the_setting_says(
    run: Callable[..., Any], settings: Settings, ids: RequestIds, reader: RecordReader, place: str, header_count: int
) -> None:
    """P2: the issuer reads the same request id from each place."""
    request_id = ids.mint(1, 7, AT_MS)
    partition = partition_of(1, PARTITIONS)

    async def scenario(parts: Parts) -> None:
        request = Sent(7, request_id)
        parts.appends.start(request, {})
        await request.answer

    run(scenario, request_id_in=place)

    *_, record = log_reader.read_records(settings, Topic.ISSUE_COUPON, partition, None)
    assert len(record.headers) == header_count
    assert (request_id.encode() in (record.value or b"")) == (place != "header")
    request = reader.decode(record, TOPIC_ID).request
    assert request is not None
    assert (request.request_id, request.user_id, request.accepted) == (request_id, 7, True)


def test_a_position_counts_from_the_progress_of_its_partition(run: Callable[..., Any]) -> None:
    """The number of records ahead; null when the gate has no progress for the partition."""

    async def scenario(parts: Parts) -> list[int | None]:
        requests = [Sent(1), Sent(2)]
        parts.appends.start(requests[0], {partition_of(1, PARTITIONS): 0, partition_of(1, PARTITIONS) + 1: 7})
        parts.appends.start(requests[1], {})
        return [await request.answer for request in requests]

    first, second = run(scenario)

    assert first is not None
    assert second is None


def test_cancelling_a_caller_affects_no_other(run: Callable[..., Any]) -> None:
    """P5: a caller is cancelled while the record is on the way; the repeats and the gate get the outcome."""

    async def scenario(parts: Parts) -> tuple[bool, Admission]:
        first = Sent(1, "first")
        await _admit(parts, first)
        parts.appends.start(first, {})
        first.answer.cancel()
        cancelled, waiting = (asyncio.create_task(first.is_acknowledged()) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        is_acknowledged = await waiting
        return is_acknowledged, await _admit(parts, seat(1, "second"))

    is_acknowledged, repeated = run(scenario)

    assert is_acknowledged
    assert (repeated.verdict, repeated.detail) == (Verdict.DUPLICATE, "first")


def test_a_verdict_older_than_the_gates_update_is_corrected_here(run: Callable[..., Any]) -> None:
    """P2: the gate was updated while its verdict 'unacknowledged' was in flight: the repeat still is a duplicate."""

    async def scenario(parts: Parts) -> bool:
        first = Sent(1, "first")
        await _admit(parts, first)
        parts.appends.start(first, {})
        await first.answer
        assert (await _admit(parts, seat(1, "second"))).verdict is Verdict.DUPLICATE
        pending = parts.appends.find("first")
        assert pending is not None
        return await pending.is_acknowledged()

    assert run(scenario)


@pytest.mark.parametrize(("is_first_attempt", "verdict"), [(True, Verdict.ADMITTED), (False, Verdict.UNACKNOWLEDGED)])
def test_only_a_first_attempt_that_was_not_sent_releases_its_seat(
    is_first_attempt: bool, verdict: Verdict, run: Callable[..., Any]
) -> None:
    """P5: a record that was refused locally is not in the log; the first attempt of a repeat may be."""

    async def scenario(parts: Parts) -> Admission:
        first = Sent(1, "first", TOO_LARGE)
        first.is_first_attempt = is_first_attempt
        await _admit(parts, first)
        parts.appends.start(first, {})
        with pytest.raises(NotProduced):
            await first.answer
        await _until_forgotten(parts, "first")
        return await _admit(parts, seat(1, "second"))

    assert run(scenario).verdict is verdict


def test_an_unknown_outcome_keeps_the_seat(run: Callable[..., Any]) -> None:
    """P5: the record may be in the log, so the repeat is the same request."""

    async def scenario(parts: Parts) -> Admission:
        first = Sent(1, "first")
        await _admit(parts, first)
        parts.appends.start(first, {})
        with pytest.raises(ProduceUnconfirmed):
            await first.answer
        await _until_forgotten(parts, "first")
        return await _admit(parts, seat(1, "second"))

    repeated = run(scenario, kafka_bootstrap_servers="127.0.0.1:9", produce_timeout_ms=200)

    assert (repeated.verdict, repeated.detail) == (Verdict.UNACKNOWLEDGED, "first")


def test_an_offset_that_the_gate_does_not_take_is_forgotten(
    run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """P6: the gate's update is lost, which is logged and repaired by the sweep."""
    caplog.set_level(logging.INFO)

    async def scenario(parts: Parts) -> None:
        first = Sent(1, "first")
        parts.appends.start(first, {})
        await first.answer
        with pytest.raises(Unavailable):
            await _admit(parts, seat(2))
        await _until_forgotten(parts, "first")

    run(scenario, redis_url="redis://127.0.0.1:9/0")

    assert LogEvent.GATE_UPDATE_LOST in caplog.text


def test_a_coupon_keeps_its_partition_when_the_topic_grows(run: Callable[..., Any]) -> None:
    """P3: the issuer and the API use the setting, not the broker's present number of partitions."""
    fewer = 5
    assert partition_of(1, fewer) != partition_of(1, PARTITIONS)

    async def scenario(parts: Parts) -> int:
        request = Sent(1)
        parts.appends.start(request, {})
        await request.answer
        assert isinstance(request._outcome, LogPosition)
        return request._outcome.partition

    assert run(scenario, topic_partitions=fewer) == partition_of(1, fewer)
