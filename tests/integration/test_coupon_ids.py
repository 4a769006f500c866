"""The largest coupon id: when PostgreSQL is queried for it, and what happens while it does not answer."""

import asyncio
import socket
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from service.domain.coupon import Coupon
from service.store import engine
from service.usecases import coupon_ids
from service.usecases.coupon_ids import CouponIds

MakeCoupon = Callable[..., Coupon]


def test_an_id_up_to_the_largest_one_needs_no_query(
    store: Engine, make_coupon: MakeCoupon, statements: list[str]
) -> None:
    """Once an id was read, no request for it or for a smaller one waits for PostgreSQL."""
    largest = [make_coupon().id for _ in range(3)][-1]
    statements.clear()

    async def ask() -> list[bool]:
        ids = CouponIds(store)
        return [await ids.may_exist(one) for one in (largest, largest, 1, largest + 1)]

    assert asyncio.run(ask()) == [True, True, True, False]
    assert len(statements) == 2


def test_the_largest_id_never_decreases(store: Engine, admin: Engine, make_coupon: MakeCoupon) -> None:
    """A database that was restored to an earlier state refuses no id that existed before."""
    largest = make_coupon().id

    async def ask() -> list[bool]:
        ids = CouponIds(store)
        before = await ids.may_exist(largest)
        with admin.begin() as tx:
            tx.execute(text("TRUNCATE coupons CASCADE"))
        return [before, await ids.may_exist(largest + 1), await ids.may_exist(largest)]

    assert asyncio.run(ask()) == [True, False, True]


def test_every_id_may_exist_while_postgresql_is_away() -> None:
    """The gate may have the coupon, so the request goes on."""

    async def ask() -> bool:
        away = engine.build("postgresql://coupons@127.0.0.1:9/coupons", "tests")
        return await CouponIds(away).may_exist(7)

    assert asyncio.run(ask())


def test_a_postgresql_that_does_not_answer_is_not_queried_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go on after the timeout, later ones at once, and one connection waits for the answer."""
    monkeypatch.setattr(coupon_ids, "_TIMEOUT_SECONDS", 0.1)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(0)
        store = engine.build(f"postgresql://coupons@127.0.0.1:{silent.getsockname()[1]}/coupons", "tests")

        async def ask() -> list[bool]:
            ids = CouponIds(store)
            answers = [await ids.may_exist(7), await ids.may_exist(8)]
            silent.accept()[0].close()
            with pytest.raises(BlockingIOError):
                silent.accept()
            return answers

        assert asyncio.run(ask()) == [True, True]
