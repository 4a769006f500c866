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
from service.domain.errors import NotProduced, ProduceUnconfirmed
from service.domain.request import LogPosition
from service.gate.async_gate import Admission, AsyncGate
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from service.log_events import LogEvent
from service.stream import clients
from service.stream.partitioner import partition_of
from service.stream.producer import RequestProducer
from service.usecases.append_tracker import AppendTracker
from tests.builders import PARTITIONS, coupon
from tests.gate_client import seat

#: larger than a record may be, so that the producer refuses it before anything is sent
TOO_LARGE = "x" * 2_000_000


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
        gate = AsyncGate(redis)
        yield Parts(gate, AppendTracker(gate, producer, settings.topic_partitions))
        producer.close(1)


async def _until_forgotten(parts: Parts, request_id: str) -> None:
    """Wait until the gate's update has succeeded or failed and the entry has been removed."""
    while parts.appends.find(request_id) is not None:  # noqa: ASYNC110  # there is no event for it
        await asyncio.sleep(0.01)


def test_every_wait_gets_the_same_position(run: Callable[..., Any]) -> None:
    """P2: the first request and its repeats get one outcome, also a repeat that comes after it."""

    async def scenario(parts: Parts) -> list[LogPosition]:
        append = parts.appends.start(seat(1), None, is_first_attempt=True)
        early = [append.wait(), append.wait()]
        return [await early[0], await early[1], await append.wait()]

    first, second, late = run(scenario)

    assert first == second == late


def test_cancelling_a_wait_affects_no_other(run: Callable[..., Any]) -> None:
    """P5: the first request is cancelled while its record is on the way; the repeat and the gate get the outcome."""

    async def scenario(parts: Parts) -> tuple[LogPosition, Admission]:
        first = seat(1, "first")
        await parts.gate.admit(first)
        append = parts.appends.start(first, None, is_first_attempt=True)
        cancelled, waiting = append.wait(), append.wait()
        cancelled.cancel()
        position = await waiting
        await _until_forgotten(parts, "first")
        return position, await parts.gate.admit(seat(1, "second"))

    position, repeated = run(scenario)

    assert isinstance(position, LogPosition)
    assert (repeated.verdict, repeated.detail) == (Verdict.DUPLICATE, "first")


def test_a_verdict_older_than_the_gates_update_is_corrected_here(run: Callable[..., Any]) -> None:
    """P2: the gate was updated while its verdict 'unacknowledged' was in flight: the repeat still is a duplicate."""

    async def scenario(parts: Parts) -> tuple[LogPosition, LogPosition]:
        first = seat(1, "first")
        await parts.gate.admit(first)
        position = await parts.appends.start(first, None, is_first_attempt=True).wait()
        while (await parts.gate.admit(seat(1, "second"))).verdict is Verdict.UNACKNOWLEDGED:
            pass
        append = parts.appends.find("first")
        assert append is not None
        return position, await append.wait()

    position, repeated = run(scenario)

    assert repeated == position


@pytest.mark.parametrize(("is_first_attempt", "verdict"), [(True, Verdict.ADMITTED), (False, Verdict.UNACKNOWLEDGED)])
def test_only_a_first_attempt_that_was_not_sent_releases_its_seat(
    is_first_attempt: bool, verdict: Verdict, run: Callable[..., Any]
) -> None:
    """P5: a record that was refused locally is not in the log; the first attempt of a repeat may be."""

    async def scenario(parts: Parts) -> Admission:
        first = seat(1, "first")
        await parts.gate.admit(first)
        append = parts.appends.start(first, TOO_LARGE, is_first_attempt=is_first_attempt)
        with pytest.raises(NotProduced):
            await append.wait()
        await _until_forgotten(parts, "first")
        return await parts.gate.admit(seat(1, "second"))

    assert run(scenario).verdict is verdict


def test_an_unknown_outcome_keeps_the_seat(run: Callable[..., Any]) -> None:
    """P5: the record may be in the log, so the repeat is the same request."""

    async def scenario(parts: Parts) -> Admission:
        first = seat(1, "first")
        await parts.gate.admit(first)
        with pytest.raises(ProduceUnconfirmed):
            await parts.appends.start(first, None, is_first_attempt=True).wait()
        await _until_forgotten(parts, "first")
        return await parts.gate.admit(seat(1, "second"))

    repeated = run(scenario, kafka_bootstrap_servers="127.0.0.1:9", produce_timeout_ms=200)

    assert (repeated.verdict, repeated.detail) == (Verdict.UNACKNOWLEDGED, "first")


def test_requests_are_accepted_while_redis_is_unavailable(
    run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """P6: the user gets the position; the gate's update is lost, which is logged and repaired by the sweep."""
    caplog.set_level(logging.INFO)

    async def scenario(parts: Parts) -> LogPosition:
        append = parts.appends.start(seat(1, "first"), None, is_first_attempt=True)
        position = await append.wait()
        await _until_forgotten(parts, "first")
        return position

    position = run(scenario, redis_url="redis://127.0.0.1:9/0")

    assert isinstance(position, LogPosition)
    assert LogEvent.GATE_UPDATE_LOST in caplog.text


def test_a_coupon_keeps_its_partition_when_the_topic_grows(run: Callable[..., Any]) -> None:
    """P3: the issuer and the API use the setting, not the broker's present number of partitions."""
    fewer = 5
    assert partition_of(1, fewer) != partition_of(1, PARTITIONS)

    async def scenario(parts: Parts) -> LogPosition:
        return await parts.appends.start(seat(1), None, is_first_attempt=True).wait()

    assert run(scenario, topic_partitions=fewer).partition == partition_of(1, fewer)
