"""Accepting a request: from the gate's verdict to the receipt, and the fields that its log lines carry."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from sqlalchemy import Engine
from structlog.contextvars import get_contextvars

from service.clock import now_ms
from service.domain.coupon import Coupon
from service.domain.errors import BacklogFull, KeyEnded, KeyMissing, ProduceUnconfirmed, RateLimited, Refused
from service.domain.rate_limit import LimitScope, LocalLimiter, RateLimit, RateLimits
from service.domain.request import ReasonCode
from service.domain.request_id import RequestIds
from service.gate.async_gate import AsyncGate
from service.gate.gate_admin import GateAdmin
from service.metrics import ACCEPT_SECONDS, GATE_CALL_REQUESTS, PRODUCE_SECONDS, BatchHistogram
from service.resources import Resources
from service.store import coupons
from service.store.tables import LIVE_ROWS
from service.stream import clients
from service.stream.partitioner import partition_of
from service.stream.producer import RequestProducer
from service.usecases.accept import IssuanceAcceptor, Receipt
from service.usecases.append_tracker import AppendTracker, PendingRequest
from service.usecases.backlog import Backlog
from service.usecases.coupon_ids import CouponIds
from service.usecases.fill_pool import FillPool
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.gate_fill import GateFiller
from tests.builders import PARTITIONS
from tests.gate_client import GateClient, seat
from tests.log import Log

_MAX_UNDECIDED = 3
MakeCoupon = Callable[..., Coupon]
Scenario = Callable[[IssuanceAcceptor], Coroutine[Any, Any, Any]]


@pytest.fixture
def limits() -> RateLimits:
    """No rate limits; a test that needs some replaces this."""
    return {}


@pytest.fixture
def run(
    resources: Resources, store: Engine, ids: RequestIds, gate_filler: GateFiller, real_log: Log, limits: RateLimits
) -> Callable[[Scenario], Any]:
    """Run a scenario with an acceptor on real services and an empty log."""
    assert not real_log.undecided()
    settings = resources.settings

    async def with_acceptor(scenario: Scenario) -> Any:
        async with AsyncRedis.from_url(settings.redis_url) as redis:
            gate, producer = AsyncGate(redis, limits), RequestProducer(clients.build_producer(settings))
            backlog = Backlog(_MAX_UNDECIDED, lambda: resources.log_watch.log.id)
            appends = AppendTracker(gate, producer, settings.topic_partitions, backlog)
            coupon_ids, fill_pool, log_watch = CouponIds(store), FillPool(gate_filler), resources.log_watch
            database_gate = DatabaseGate(store, LocalLimiter(limits, int))
            acceptor = IssuanceAcceptor(gate, database_gate, coupon_ids, fill_pool, appends, ids, log_watch, now_ms)
            try:
                return await scenario(acceptor)
            finally:
                fill_pool.close()
                producer.close(1)
                await acceptor.close()

    return lambda scenario: asyncio.run(with_acceptor(scenario))


async def _accept(acceptor: IssuanceAcceptor, coupon_id: int) -> tuple[str, dict[str, Any]]:
    """Return the request id of the receipt, and the fields bound for log lines."""
    receipt = await acceptor.accept(coupon_id, 7)
    return receipt.request_id, get_contextvars()


@pytest.mark.usefixtures("gate_client")
def test_log_lines_carry_the_ids_of_their_own_request(run: Callable[[Scenario], Any], make_coupon: MakeCoupon) -> None:
    """Each request binds its ids in its own context; the next task does not inherit them."""
    coupons = [make_coupon().id for _ in range(2)]

    async def scenario(acceptor: IssuanceAcceptor) -> list[Any]:
        accepted = [await asyncio.create_task(_accept(acceptor, coupon_id)) for coupon_id in coupons]
        return [*accepted, get_contextvars()]

    *accepted, outside = run(scenario)

    for coupon_id, (request_id, fields) in zip(coupons, accepted, strict=True):
        assert fields == {"request_id": request_id, "coupon_id": coupon_id}
    assert outside == {}


@pytest.mark.usefixtures("gate_client")
def test_the_latency_of_every_accept_is_counted(
    run: Callable[[Scenario], Any], make_coupon: MakeCoupon, gate_filler: GateFiller
) -> None:
    """One request of a gate call is measured, and counts for all that were admitted with it; refusals do not count."""
    coupon = make_coupon(quantity=30)
    gate_filler.fill(coupon.id)
    histograms = (ACCEPT_SECONDS, PRODUCE_SECONDS, GATE_CALL_REQUESTS)
    before = [_totals(histogram) for histogram in histograms]

    async def scenario(acceptor: IssuanceAcceptor) -> float:
        began = asyncio.get_running_loop().time()
        requests = (acceptor.accept(coupon.id, user) for user in range(1, 41))
        await asyncio.gather(*requests, return_exceptions=True)
        return asyncio.get_running_loop().time() - began

    took_seconds = run(scenario)

    accepted, produced, gate_calls = (
        (count - count_before, total - total_before)
        for (count, total), (count_before, total_before) in zip(map(_totals, histograms), before, strict=True)
    )
    assert (accepted[0], produced[0], gate_calls[1]) == (30, 30, 40)
    assert 0 < produced[1] < accepted[1] <= 30 * took_seconds


def _totals(histogram: BatchHistogram) -> tuple[float, float]:
    """Return the number of observations and their sum."""
    (family,) = histogram.collect()
    by_suffix = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
    return by_suffix["count"], by_suffix["sum"]


def test_a_repeat_continues_under_the_request_id_of_the_first(
    run: Callable[[Scenario], Any],
    make_coupon: MakeCoupon,
    gate_filler: GateFiller,
    gate_client: GateClient,
    ids: RequestIds,
) -> None:
    """P5: the first has a seat and no outcome; the repeat is produced under its id, and the next one is a duplicate."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    first_id = ids.mint(coupon.id, 7, now_ms())
    gate_client.admit(seat(7, first_id, coupon.id, now_ms()))

    async def scenario(acceptor: IssuanceAcceptor) -> tuple[tuple[str, dict[str, Any]], Refused]:
        repeated = await asyncio.create_task(_accept(acceptor, coupon.id))
        with pytest.raises(Refused) as refused:
            await acceptor.accept(coupon.id, 7)
        return repeated, refused.value

    (request_id, fields), refusal = run(scenario)

    assert (request_id, fields["request_id"]) == (first_id, first_id)
    assert (refusal.code, refusal.first_request_id) == (ReasonCode.DUPLICATE, first_id)


class _Unanswered(PendingRequest):
    """A request whose caller has gone."""

    def on_failed(self, error: Exception) -> None:
        """Do nothing."""


@pytest.mark.parametrize("is_pending", [True, False], ids=["first append pending", "first append of another process"])
def test_of_many_repeats_one_is_produced(
    run: Callable[[Scenario], Any],
    make_coupon: MakeCoupon,
    gate_filler: GateFiller,
    gate_client: GateClient,
    ids: RequestIds,
    real_log: Log,
    *,
    is_pending: bool,
) -> None:
    """P2: a user who presses again and again while Kafka does not confirm causes one more record, not one each time."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    first = _Unanswered(coupon.id, 7)
    first.request_id = ids.mint(coupon.id, 7, now_ms())
    gate_client.admit(seat(7, first.request_id, coupon.id, now_ms()))

    async def scenario(acceptor: IssuanceAcceptor) -> list[Any]:
        appends = acceptor._appends
        if is_pending:
            appends._pending[first.request_id] = first
        repeats = [asyncio.create_task(acceptor.accept(coupon.id, 7)) for _ in range(5)]
        if is_pending:
            async with asyncio.timeout(5):
                while len(first._waiters or ()) < 5:  # noqa: ASYNC110  # there is no event for it
                    await asyncio.sleep(0.01)
            appends.on_delivery(first, ProduceUnconfirmed("Kafka", "no answer"))
        return await asyncio.gather(*repeats, return_exceptions=True)

    answers = run(scenario)

    assert [one.request_id for one in answers if isinstance(one, Receipt)] == [first.request_id]
    assert [one.first_request_id for one in answers if isinstance(one, Refused)] == [first.request_id] * 4
    assert len(real_log.undecided()) == 1


@pytest.mark.usefixtures("gate_client")
def test_nothing_is_accepted_under_an_id_of_a_key_that_has_ended(
    run: Callable[[Scenario], Any], make_coupon: MakeCoupon, gate_filler: GateFiller, ids: RequestIds, redis: Redis
) -> None:
    """P4: the issuer would decide its record as another producer's. The caller gets 503, and no seat is taken."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    ids.set_ends({ids.fingerprints[0]: now_ms() - 1})

    with pytest.raises(KeyEnded):
        run(lambda acceptor: acceptor.accept(coupon.id, 7))
    assert redis.hlen(f"gate:{coupon.id}:seats") == 0


def test_a_repeat_is_not_produced_under_an_id_that_no_key_verifies(
    run: Callable[[Scenario], Any],
    make_coupon: MakeCoupon,
    gate_filler: GateFiller,
    gate_client: GateClient,
    real_log: Log,
) -> None:
    """P4: its record would become a dead letter, so it gets no 202."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    removed = RequestIds([b"a key that was removed"]).mint(coupon.id, 7, now_ms())
    gate_client.admit(seat(7, removed, coupon.id, now_ms()))

    with pytest.raises(KeyMissing):
        run(lambda acceptor: acceptor.accept(coupon.id, 7))
    assert real_log.undecided() == []


@pytest.mark.usefixtures("gate_client")
def test_above_the_ceiling_of_undecided_records_no_request_gets_a_seat(
    run: Callable[[Scenario], Any],
    make_coupon: MakeCoupon,
    gate_filler: GateFiller,
    gate_admin: GateAdmin,
    gate_client: GateClient,
    ids: RequestIds,
    real_log: Log,
) -> None:
    """503 until the issuer has caught up; also for a repeat, whose seat stays. A duplicate is refused as usual."""
    coupon = make_coupon(quantity=100)
    gate_filler.fill(coupon.id)
    partition = partition_of(coupon.id, PARTITIONS)
    first_offset = real_log.positions[partition]
    gate_admin.publish_progress({partition: first_offset})
    unacknowledged = ids.mint(coupon.id, 99, now_ms())
    gate_client.admit(seat(99, unacknowledged, coupon.id, now_ms()))

    async def accept_until_full(acceptor: IssuanceAcceptor) -> int:
        """Return the number of accepted requests; the ceiling is noticed with the next call of the gate."""
        for user in count(1):
            try:
                await acceptor.accept(coupon.id, user)
            except BacklogFull:
                return user - 1
        raise AssertionError

    async def scenario(acceptor: IssuanceAcceptor) -> int:
        accepted = await accept_until_full(acceptor)
        assert gate_admin.seat_holder(coupon.id, accepted + 1) is None
        with pytest.raises(Refused) as refused:
            await acceptor.accept(coupon.id, 1)
        assert refused.value.code is ReasonCode.DUPLICATE
        with pytest.raises(BacklogFull):
            await acceptor.accept(coupon.id, 99)
        assert gate_admin.seat_holder(coupon.id, 99) == unacknowledged

        gate_admin.publish_progress({partition: first_offset + accepted})
        with suppress(BacklogFull):  # its call learns of the progress
            await acceptor.accept(coupon.id, 98)
        assert (await acceptor.accept(coupon.id, 99)).request_id == unacknowledged
        return accepted

    assert run(scenario) in {_MAX_UNDECIDED + 1, _MAX_UNDECIDED + 2}


@pytest.mark.usefixtures("gate_client")
def test_while_the_memory_of_redis_is_full_the_database_decides(
    run: Callable[[Scenario], Any], make_coupon: MakeCoupon, gate_filler: GateFiller, redis: Redis
) -> None:
    """A coupon that the gate has and one that is cold are accepted; the gate changes nothing in part."""
    filled, cold = make_coupon(), make_coupon()
    gate_filler.fill(filled.id)
    before = sorted(redis.scan_iter())
    redis.config_set("maxmemory", 1)
    try:
        receipts = [run(lambda acceptor, at=coupon.id: acceptor.accept(at, 7)) for coupon in (filled, cold)]  # type: ignore[misc]
        assert sorted(redis.scan_iter()) == before
    finally:
        redis.config_set("maxmemory", 0)

    assert [receipt.coupon_id for receipt in receipts] == [filled.id, cold.id]
    assert run(lambda acceptor: acceptor.accept(filled.id, 8)).coupon_id == filled.id
    assert redis.hkeys(f"gate:{filled.id}:seats") == [b"8"]


#: far above the id of every coupon
NEVER_SEEN = 7_000_000_000


def _count_fills(statements: list[str]) -> int:
    """Count the queries for the seats of a coupon; only a fill reads them."""
    return sum(statement.endswith(f" {LIVE_ROWS}") for statement in statements)


async def _refused_codes(acceptor: IssuanceAcceptor, coupon_ids: Iterable[int]) -> set[ReasonCode]:
    """Request all these coupons at the same time; return the codes of the refusals."""
    results = await asyncio.gather(*(acceptor.accept(one, 1) for one in coupon_ids), return_exceptions=True)
    assert all(isinstance(result, Refused) for result in results), results
    return {result.code for result in results if isinstance(result, Refused)}


def test_requests_for_ids_that_were_never_created_share_a_query(
    run: Callable[[Scenario], Any], redis: Redis, make_coupon: MakeCoupon, statements: list[str]
) -> None:
    """Two hundred such ids at once cost two queries at most, no fill, and no key in Redis."""
    make_coupon()
    statements.clear()

    codes = run(lambda acceptor: _refused_codes(acceptor, range(NEVER_SEEN, NEVER_SEEN + 200)))

    assert codes == {ReasonCode.UNKNOWN_COUPON}
    assert set(statements) == {"SELECT max(coupons.id) AS max_1 \nFROM coupons"}
    assert len(statements) <= 2
    assert redis.dbsize() == 0


@pytest.mark.usefixtures("gate_client")
def test_a_coupon_of_another_process_is_accepted_at_its_first_request(
    run: Callable[[Scenario], Any], separate_store: Engine, make_coupon: MakeCoupon
) -> None:
    """The id was refused a moment ago; after the other process has created the coupon it is accepted at once."""
    next_id = make_coupon().id + 1

    async def scenario(acceptor: IssuanceAcceptor) -> Receipt:
        with pytest.raises(Refused) as refused:
            await acceptor.accept(next_id, 7)
        assert refused.value.code is ReasonCode.UNKNOWN_COUPON
        with separate_store.begin() as tx:
            assert coupons.create(tx, "another", 10, 0, None, None, "tests").id == next_id
        return await acceptor.accept(next_id, 7)

    assert run(scenario).coupon_id == next_id


@pytest.mark.usefixtures("gate_client")
def test_a_cold_coupon_does_not_wait_for_ids_that_were_never_created(
    run: Callable[[Scenario], Any], make_coupon: MakeCoupon, statements: list[str]
) -> None:
    """While 64 clients request such ids, the only fill is that of the coupon that exists."""
    coupon = make_coupon()
    ids = count(NEVER_SEEN)

    async def request_unknown(acceptor: IssuanceAcceptor, all_refused: asyncio.Barrier) -> None:
        await _refused_codes(acceptor, [next(ids)])
        await all_refused.wait()
        while True:
            await _refused_codes(acceptor, [next(ids)])

    async def scenario(acceptor: IssuanceAcceptor) -> Receipt:
        all_refused = asyncio.Barrier(65)
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(request_unknown(acceptor, all_refused)) for _ in range(64)]
            await all_refused.wait()
            receipt = await acceptor.accept(coupon.id, 7)
            for client in clients:
                client.cancel()
        return receipt

    assert run(scenario).coupon_id == coupon.id
    assert _count_fills(statements) == 1


@pytest.mark.usefixtures("gate_client")
@pytest.mark.parametrize("limits", [{LimitScope.USER: RateLimit(3, 1_000)}])
def test_a_caller_causes_no_more_fills_than_its_limit_admits(
    run: Callable[[Scenario], Any], make_coupon: MakeCoupon, statements: list[str]
) -> None:
    """Also with requests for many cold coupons at the same moment, before one of them was charged at the gate."""
    coupon_ids = [make_coupon().id for _ in range(20)]

    async def scenario(acceptor: IssuanceAcceptor) -> list[Any]:
        at_once = await asyncio.gather(*(acceptor.accept(one, 7) for one in coupon_ids), return_exceptions=True)
        after = await asyncio.gather(*(acceptor.accept(one, 7) for one in coupon_ids), return_exceptions=True)
        return [*at_once, *after, await acceptor.accept(coupon_ids[-1], 8)]

    *of_user, other = run(scenario)

    assert [type(one) for one in of_user] == [*[Receipt] * 3, *[RateLimited] * 37]
    assert (other.coupon_id, _count_fills(statements)) == (coupon_ids[-1], 4)


@pytest.mark.usefixtures("gate_client")
def test_a_request_survives_what_something_else_wrote_to_redis(
    run: Callable[[Scenario], Any], redis: Redis, gate_filler: GateFiller, make_coupon: MakeCoupon
) -> None:
    """The coupon is filled again; only the position is unknown."""
    coupon = make_coupon()
    gate_filler.fill(coupon.id)
    redis.hset(f"gate:{coupon.id}", "opens", "abc")
    redis.hset("gate:progress", mapping=dict.fromkeys(map(str, range(PARTITIONS)), "abc"))

    receipt = run(lambda acceptor: acceptor.accept(coupon.id, 7))

    assert (receipt.coupon_id, receipt.position) == (coupon.id, None)
    assert redis.hget(f"gate:{coupon.id}", "opens") == b""
