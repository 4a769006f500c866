"""A whole sale while every process reaches PostgreSQL through PgBouncer with transaction pooling."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from service.crash_points import CrashPoint
from tests.fixtures.pgbouncer import TRANSACTION_POOLING, pooled_postgresql
from tests.fixtures.running import running
from tests.system import System
from tests.waiting import eventually

#: as many connections to the server, which all processes share
_POOL_SIZE = 12
_USERS = 200
_QUANTITY = 150
#: the locks of a frozen process last five seconds
_UNLOCKED_SECONDS = 12.0


class Pooled(NamedTuple):
    """The running system, and the directory whose files arm crash points."""

    system: System
    crash_points: Path


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pooled]:
    """The whole system."""
    directory = tmp_path_factory.mktemp("pooled")
    settings = {**TRANSACTION_POOLING, "default_pool_size": str(_POOL_SIZE), "max_client_conn": "200"}
    with (
        pooled_postgresql(directory.with_name(f"{directory.name}-server"), settings) as variables,
        running(directory, variables) as system,
    ):
        yield Pooled(system, directory / "crash_points")


def test_a_sale_over_a_pooler_survives_a_frozen_issuer(pooled: Pooled) -> None:
    """P7: requests fail and are retried, an issuer freezes in its transaction, and every promise holds at the end."""
    system = pooled.system
    system.wait_until_ready()
    coupon = system.make_coupon(_QUANTITY, waitlist=20)
    failing = [system.request_until_answered(coupon, user, fault="22012 1") for user in range(1, 11)]
    system.request_many(coupon, range(11, 60))
    armed = pooled.crash_points / f"{CrashPoint.ISSUER_WRITTEN}.stop"
    armed.touch()
    system.request_many(coupon, range(60, _USERS + 1))
    eventually(lambda: not armed.exists())

    renamed = {"name": "another name"}
    eventually(
        lambda: system.http.patch(f"/coupons/{coupon}", json=renamed).status_code == httpx.codes.OK,
        within_seconds=_UNLOCKED_SECONDS,
    )
    system.stack.thaw("issuer")

    assert {system.wait_until_final(answer.json()["request_id"])["state"] for answer in failing} == {"issued"}
    system.wait_until_idle()
    assert system.count("SELECT issued FROM coupons WHERE id = :id", id=coupon) == _QUANTITY
    system.assert_promises()
