"""No alert is active while all is well: during a sale in which requests fail and are retried, as they may."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from testkit.issuance_client import IssuanceClient
from tests.alert_watch import AlertWatch
from tests.prometheus_server import has_evaluated, prometheus
from tests.system import System
from tests.waiting import eventually

_USERS = 3_000
#: the first attempt of each such user fails
_FAILING_EVERY = 150
_CONNECTIONS = 64
#: most alerts are active when what they are about has lasted for six seconds
_DELAY = timedelta(seconds=7)


@pytest.mark.timeout(120)
def test_a_sale_raises_no_alert(system: System, tmp_path: Path) -> None:
    """Neither the API nor the dashboard nor Prometheus reports one, from the first request to the last notice."""
    coupon, posts = system.make_coupon(quantity=_USERS), system.receiver.posts.total()
    with prometheus(system, tmp_path) as server, AlertWatch(system, server) as watch:
        if server:
            eventually(lambda: has_evaluated(server))
        watch.wait_until_none()  # a test before this one may have left an alert
        watch.forget()
        asyncio.run(_sell(system, coupon))
        system.wait_until_idle()
        watch.wait_until_observed_after(datetime.now(UTC) + _DELAY)
        seen = {where: source.seen for where, source in watch.sources.items() if source.seen}

    outcomes = Counter(answer.outcome for answer in system.history if answer.coupon_id == coupon)
    retried = "SELECT count(*) FROM requests WHERE coupon_id = :id AND attempts = 2"
    assert seen == {}
    assert outcomes == {"accepted": _USERS}
    assert system.count("SELECT issued FROM coupons WHERE id = :id", id=coupon) == _USERS
    assert system.count(retried, id=coupon) == _USERS // _FAILING_EVERY
    assert system.receiver.posts.total() > posts


async def _sell(system: System, coupon: int) -> None:
    """Let all users request the coupon at once."""
    async with IssuanceClient(system.stack.api_url, _CONNECTIONS, 30.0, system.credentials) as client:
        system.history.extend(
            await asyncio.gather(
                *(
                    client.request(user, coupon, None if user % _FAILING_EVERY else "22012 1")
                    for user in range(1, _USERS + 1)
                )
            )
        )
