"""Threads for fills: what waits for them, and what does not."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing
from typing import TypeVar

import pytest
from sqlalchemy import Engine

from service.domain.coupon import Coupon
from service.domain.errors import Unavailable
from service.domain.rate_limit import LocalLimiter
from service.gate.gate_admin import GateAdmin
from service.gate.keys import Verdict
from service.usecases import fill_pool
from service.usecases.fill_pool import FillPool
from service.usecases.gate_fallback import DatabaseGate
from service.usecases.gate_fill import GateFiller
from tests.gate_client import seat

MakeCoupon = Callable[..., Coupon]
Result = TypeVar("Result")


def _while_fills_wait(
    gate_filler: GateFiller,
    gate_admin: GateAdmin,
    coupon_ids: list[int],
    scenario: Callable[[FillPool], Awaitable[Result]],
) -> Result:
    """Run a scenario while fills of these coupons wait for another process; they end after it."""

    async def run() -> Result:
        with closing(FillPool(gate_filler)) as pool, ExitStack() as locks:
            for coupon_id in set(coupon_ids):
                assert locks.enter_context(gate_admin.fill_lock(coupon_id))
            fills = [asyncio.create_task(pool.fill(coupon_id)) for coupon_id in coupon_ids]
            await asyncio.sleep(0)  # every fill is submitted
            result = await scenario(pool)
            assert not any(fill.done() for fill in fills)
            locks.close()
            await asyncio.gather(*fills)
        return result

    return asyncio.run(run())


@pytest.mark.usefixtures("real_log")
def test_fills_that_wait_delay_no_other_blocking_work(
    gate_filler: GateFiller, gate_admin: GateAdmin, store: Engine, make_coupon: MakeCoupon
) -> None:
    """The database gate answers although more coupons wait to be filled than the event loop has threads."""
    coupons = [make_coupon().id for _ in range(40)]

    async def ask_database(_: FillPool) -> Verdict:
        return (await DatabaseGate(store, LocalLimiter({}, int)).admit(seat(1, coupon_id=coupons[0]))).verdict

    assert _while_fills_wait(gate_filler, gate_admin, coupons, ask_database) is Verdict.ADMITTED
    assert not any(gate_admin.is_cold(coupon_id) for coupon_id in coupons)


@pytest.mark.usefixtures("real_log")
def test_the_number_of_coupons_that_wait_is_bounded(
    gate_filler: GateFiller, gate_admin: GateAdmin, make_coupon: MakeCoupon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another coupon is answered as unavailable; another request for the same coupon shares its fill."""
    monkeypatch.setattr(fill_pool, "_MAX_FILLS", 1)
    first, second = (make_coupon().id for _ in range(2))

    async def fill_another(pool: FillPool) -> None:
        with pytest.raises(Unavailable, match="too many coupons wait to be filled"):
            await pool.fill(second)

    _while_fills_wait(gate_filler, gate_admin, [first, first], fill_another)

    assert [gate_admin.is_cold(one) for one in (first, second)] == [False, True]


@pytest.mark.usefixtures("real_log")
def test_a_fill_goes_on_when_its_caller_is_cancelled(
    gate_filler: GateFiller, gate_admin: GateAdmin, make_coupon: MakeCoupon
) -> None:
    """A client that leaves does not end the fill for which others wait."""
    coupon = make_coupon()

    async def leave(pool: FillPool) -> None:
        client = asyncio.create_task(pool.fill(coupon.id))
        await asyncio.sleep(0)
        client.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client

    _while_fills_wait(gate_filler, gate_admin, [coupon.id], leave)

    assert not gate_admin.is_cold(coupon.id)
