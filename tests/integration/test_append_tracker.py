"""Requests on their way to the log: whoever stops waiting for one harms neither it nor the others who wait."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from service.config import Settings
from service.domain.request import LogPosition
from service.gate.async_gate import Admission, AsyncGate, SeatRequest
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from service.stream import clients
from service.stream.partitioner import partition_of
from service.stream.producer import NotProduced, ProduceUnconfirmed, RequestProducer
from service.usecases.append_tracker import AppendTracker
from tests.builders import PARTITIONS, coupon
from tests.gate_client import seat

#: more than a record may have, so that the client refuses it before anything is sent
TOO_LARGE = "x" * 2_000_000


class Desk(NamedTuple):
    """What a test has in its hands."""

    gate: AsyncGate
    appends: AppendTracker

    async def admit(self, claim: SeatRequest) -> Admission:
        """The gate's word."""
        return await self.gate.admit(claim)


Doing = Callable[[Desk], Coroutine[Any, Any, Any]]


@pytest.fixture
def at_desk(settings: Settings, gate_admin: GateAdmin, redis: Redis) -> Callable[..., Any]:
    """Runs a coroutine at a desk whose gate has ten seats: `at_desk(doing)`."""
    redis.script_flush()
    gate_admin.fill(coupon(), [])

    def run(doing: Doing, **different: Any) -> Any:
        async def done() -> Any:
            async with _desk(settings.model_copy(update=different)) as desk:
                return await doing(desk)

        return asyncio.run(done())

    return run


@asynccontextmanager
async def _desk(settings: Settings) -> AsyncIterator[Desk]:
    async with AsyncRedis.from_url(settings.redis_url) as redis:
        writer = RequestProducer(clients.build_producer(settings))
        gate = AsyncGate(redis)
        yield Desk(gate, AppendTracker(gate, writer, settings.topic_partitions))
        writer.close(1)


async def _until_forgotten(desk: Desk, request_id: str) -> None:
    """Waits until the gate has been told of an append, or will not be, and everyone who asked before is answered."""
    while desk.appends.find(request_id) is not None:  # noqa: ASYNC110  # nobody announces it
        await asyncio.sleep(0.01)


def test_all_who_wait_hear_the_same_place(at_desk: Callable[..., Any]) -> None:
    """Step 3: the first press and its repeats wait for one word, and one who comes after it hears it too."""

    async def press(desk: Desk) -> list[LogPosition]:
        append = desk.appends.start(seat(1), None, is_first_attempt=True)
        early = [append.wait(), append.wait()]
        return [await early[0], await early[1], await append.wait()]

    first, second, late = at_desk(press)

    assert first == second == late


def test_whoever_gives_up_disturbs_nobody(at_desk: Callable[..., Any]) -> None:
    """Step 3: the first press is cancelled while its record is on the way; the repeat hears, and the gate is told."""

    async def press(desk: Desk) -> tuple[LogPosition, Admission]:
        claim = seat(1, "first")
        await desk.admit(claim)
        append = desk.appends.start(claim, None, is_first_attempt=True)
        gone, waiting = append.wait(), append.wait()
        gone.cancel()
        place = await waiting
        await _until_forgotten(desk, "first")
        return place, await desk.admit(seat(1, "second"))

    place, repeated = at_desk(press)

    assert isinstance(place, LogPosition)
    assert (repeated.verdict, repeated.detail) == (Verdict.DUPLICATE, "first")


def test_who_was_judged_before_the_gate_was_told_is_told_here(at_desk: Callable[..., Any]) -> None:
    """Step 3: the gate said unsettled, and was told while that word was on its way: the repeat still is a duplicate."""

    async def press(desk: Desk) -> tuple[LogPosition, LogPosition]:
        claim = seat(1, "first")
        await desk.admit(claim)
        place = await desk.appends.start(claim, None, is_first_attempt=True).wait()
        while (await desk.admit(seat(1, "second"))).verdict is Verdict.UNACKNOWLEDGED:
            pass
        append = desk.appends.find("first")
        assert append is not None
        return place, await append.wait()

    place, repeated = at_desk(press)

    assert repeated == place


@pytest.mark.parametrize(("first", "verdict"), [(True, Verdict.ADMITTED), (False, Verdict.UNACKNOWLEDGED)])
def test_only_a_first_try_that_was_not_sent_gives_its_seat_back(
    first: bool, verdict: Verdict, at_desk: Callable[..., Any]
) -> None:
    """Step 3: what was refused locally is not in the log; but of a repeat's first try nobody knows that."""

    async def press(desk: Desk) -> Admission:
        claim = seat(1, "first")
        await desk.admit(claim)
        append = desk.appends.start(claim, TOO_LARGE, is_first_attempt=first)
        with pytest.raises(NotProduced):
            await append.wait()
        await _until_forgotten(desk, "first")
        return await desk.admit(seat(1, "second"))

    assert at_desk(press).verdict is verdict


def test_an_unknown_outcome_keeps_the_seat(at_desk: Callable[..., Any]) -> None:
    """Step 3: nobody said whether the record is in the log, so the repeat is the same request."""

    async def press(desk: Desk) -> Admission:
        claim = seat(1, "first")
        await desk.admit(claim)
        with pytest.raises(ProduceUnconfirmed):
            await desk.appends.start(claim, None, is_first_attempt=True).wait()
        await _until_forgotten(desk, "first")
        return await desk.admit(seat(1, "second"))

    repeated = at_desk(press, kafka_bootstrap_servers="127.0.0.1:9", produce_timeout_ms=200)

    assert (repeated.verdict, repeated.detail) == (Verdict.UNACKNOWLEDGED, "first")


def test_a_gate_that_cannot_be_told_harms_nobody(at_desk: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """P6: the place is told to the user; the note is lost, which the log says and the sweep will mend."""
    caplog.set_level(logging.INFO)

    async def press(desk: Desk) -> LogPosition:
        append = desk.appends.start(seat(1, "first"), None, is_first_attempt=True)
        place = await append.wait()
        await _until_forgotten(desk, "first")
        return place

    place = at_desk(press, redis_url="redis://127.0.0.1:9/0")

    assert isinstance(place, LogPosition)
    assert "the gate was not told of an append" in caplog.text


def test_a_coupon_stays_where_it_is_though_the_topic_has_more_partitions_by_now(at_desk: Callable[..., Any]) -> None:
    """P3: the issuer and the API go by the setting, not by what the broker says at the moment."""
    less = 5
    assert partition_of(1, less) != partition_of(1, PARTITIONS)

    async def press(desk: Desk) -> LogPosition:
        return await desk.appends.start(seat(1), None, is_first_attempt=True).wait()

    assert at_desk(press, topic_partitions=less).partition == partition_of(1, less)
