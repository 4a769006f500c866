"""The waits of the latest decisions, as the dashboard shows them."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from service.domain.coupon import Coupon
from service.store import recent_waits
from service.store.recent_waits import WAITS_SECONDS, RecentWaits
from tests.log import Log


@pytest.fixture
def sale(real_log: Log, make_coupon: Callable[..., Coupon], admin: Engine) -> None:
    """A hundred requests, of which the n-th waited for n * 30 milliseconds, and a foreign one."""
    coupon = make_coupon(quantity=60)
    for user in range(1, 101):
        real_log.append_request(coupon.id, user)
    real_log.append(coupon.id, 101, request_id=None)
    real_log.issue()
    with admin.begin() as tx:
        tx.execute(
            text(
                "UPDATE requests SET decided_at = now(),"
                " requested_at = CASE WHEN user_id <= 100 THEN now() - user_id * interval '30 ms' ELSE 'epoch' END"
            )
        )


def _read(store: Engine) -> RecentWaits | None:
    with store.begin() as tx:
        return recent_waits.read(tx)


@pytest.mark.usefixtures("sale")
def test_the_waits_are_exact_percentiles(store: Engine) -> None:
    """The foreign request, which seems to have waited for decades, is left out."""
    assert _read(store) == RecentWaits(50 * 30, 99 * 30, 100)


@pytest.mark.usefixtures("sale")
def test_older_decisions_are_not_counted(store: Engine, admin: Engine) -> None:
    """After a quiet minute nothing is known of now."""
    with admin.begin() as tx:
        tx.execute(
            text("UPDATE requests SET decided_at = decided_at - make_interval(secs => :s)"), {"s": WAITS_SECONDS}
        )

    assert _read(store) is None


@pytest.mark.usefixtures("log_id")
def test_without_decisions_there_are_no_waits(store: Engine) -> None:
    assert _read(store) is None
