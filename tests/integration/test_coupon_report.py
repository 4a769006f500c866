"""A coupon report counts the rows that the issuer and the retries wrote, in one snapshot, by the coupon's indexes."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, event, text

from service import resources as service_resources
from service.cancellation import Cancellation
from service.domain.coupon import Coupon
from service.domain.coupon_report import CouponReport
from service.domain.errors import Cancelled, NotFound
from service.domain.request import ReasonCode
from service.resources import Resources
from service.store import report_queries
from service.usecases.coupons import CouponService
from tests.integration.conftest import Query
from tests.log import Log

MakeCoupon = Callable[..., Coupon]
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def report(resources: Resources) -> Callable[[int], CouponReport]:
    """Report on a coupon."""
    return service_resources.coupon_reporter(resources).report


def test_a_report_counts_every_request_by_its_state_and_code(
    report: Callable[[int], CouponReport],
    real_log: Log,
    make_coupon: MakeCoupon,
    exhaust_retries: Callable[[], None],
    coupon_service: CouponService,
) -> None:
    """Issued, refused, dead, held and standby; those of other producers apart; and what is not decided yet."""
    coupon, other = make_coupon(quantity=2), make_coupon(quantity=1)
    for user in (1, 2, 3, 1):
        real_log.append_request(coupon.id, user, fault="22012 9" if user == 2 else None)
    real_log.append(coupon.id, 4, request_id=None)
    real_log.append_request(other.id, 1)
    real_log.issue()
    real_log.append_request(coupon.id, 5)

    during = report(coupon.id)

    assert during.coupon.id == coupon.id
    assert (during.counts.accepted, during.counts.foreign, during.undecided_at_most) == (4, 1, 1)
    assert (during.counts.issued, during.counts.held, during.counts.standby) == (1, 1, 2)
    assert (during.counts.refused, during.counts.dead) == ({ReasonCode.DUPLICATE: 1}, {})
    assert during.sell_out is None

    exhaust_retries()
    real_log.issue()
    after = report(coupon.id)

    assert (after.counts.accepted, after.counts.foreign, after.undecided_at_most) == (5, 1, 0)
    assert (after.counts.issued, after.counts.held, after.counts.standby) == (2, 0, 0)
    assert after.counts.refused == {ReasonCode.DUPLICATE: 1, ReasonCode.SOLD_OUT: 2}
    assert after.counts.dead == {ReasonCode.EXHAUSTED: 1}
    assert after.sell_out
    assert after.counts.issuings
    assert after.sell_out.at == after.counts.issuings.last <= after.as_of

    coupon_service.change(coupon.id, {"quantity": 3})

    assert report(coupon.id).sell_out is None


def test_a_coupon_that_nobody_requested_has_an_empty_report(
    report: Callable[[int], CouponReport], make_coupon: MakeCoupon
) -> None:
    """No waits, no times and no points; a coupon that does not exist is unknown."""
    found = report(make_coupon().id)

    assert (found.counts.accepted, found.counts.issued, found.counts.refused) == (0, 0, {})
    assert (found.waits_ms, found.sell_out, found.counts.requested, found.series) == (None, None, None, (1, []))
    with pytest.raises(NotFound):
        report(999)


@pytest.fixture
def timed_sale(real_log: Log, make_coupon: MakeCoupon, admin: Engine) -> Coupon:
    """A coupon for 60 of 100 users, who came within a second; the n-th waited for n * 30 milliseconds.

    Then came a foreign request with a time of its own choice.
    """
    coupon = make_coupon(quantity=60)
    for user in range(1, 101):
        real_log.append_request(coupon.id, user)
    real_log.append(coupon.id, 101, request_id=None)
    real_log.issue()
    with admin.begin() as tx:
        tx.execute(
            text(
                "UPDATE requests SET requested_at = CASE WHEN user_id <= 100 THEN :noon ELSE 'epoch' END"
                " + user_id * interval '10 ms', decided_at = :noon + user_id * interval '40 ms'"
            ),
            {"noon": NOON},
        )
    return coupon


def test_the_waits_are_exact_percentiles(report: Callable[[int], CouponReport], timed_sale: Coupon) -> None:
    """Of accepted requests, in milliseconds: the foreign one seems to have waited for sixty years."""
    assert report(timed_sale.id).waits_ms == (50 * 30, 90 * 30, 99 * 30, 100 * 30)


def test_clocks_that_differ_make_no_negative_wait(
    report: Callable[[int], CouponReport], timed_sale: Coupon, admin: Engine
) -> None:
    with admin.begin() as tx:
        tx.execute(text("UPDATE requests SET requested_at = requested_at + interval '1 s'"))

    waits = report(timed_sale.id).waits_ms

    assert waits
    assert (waits.p50, waits.max) == (500, 2_000)


def test_the_series_has_each_event_in_its_second(
    report: Callable[[int], CouponReport], timed_sale: Coupon, query: Query
) -> None:
    """Requests when they were sent, issuings and refusals when they were decided; the sum is that of the report."""
    found = report(timed_sale.id)

    expected: dict[datetime, Counter[str]] = {}
    for row in query("SELECT * FROM requests"):
        if row.user_id <= 100:
            expected.setdefault(row.requested_at.replace(microsecond=0), Counter())["requested"] += 1
        expected.setdefault(row.decided_at.replace(microsecond=0), Counter())[row.state] += 1
    assert found.series.bin_seconds == 1
    assert [tuple(point) for point in found.series.points] == [
        (at, counts["requested"], counts["issued"], counts["refused"]) for at, counts in sorted(expected.items())
    ]
    assert sum(point.issued for point in found.series.points) == found.counts.issued == 60
    assert found.counts.requested == (NOON + timedelta(milliseconds=10), NOON + timedelta(seconds=1))
    assert found.sell_out == (found.counts.requested.first, NOON + timedelta(seconds=2.4), 2.39)


def test_a_long_sale_has_wider_bins(report: Callable[[int], CouponReport], timed_sale: Coupon, admin: Engine) -> None:
    with admin.begin() as tx:
        tx.execute(text("UPDATE requests SET decided_at = decided_at + interval '1 h' WHERE user_id = 100"))

    series = report(timed_sale.id).series

    assert series.bin_seconds == 5
    assert [(point.at - NOON).total_seconds() for point in series.points] == [0, 3600]
    assert [point.refused for point in series.points] == [40, 1]


def test_a_report_reads_the_rows_of_its_coupon_only(
    timed_sale: Coupon, make_coupon: MakeCoupon, admin: Engine, store: Engine
) -> None:
    """Among many requests for other coupons. Live and ended requests have an index each, and both are used."""
    other = make_coupon(quantity=1)
    with admin.begin() as tx:
        tx.execute(_MANY_REFUSED, {"coupon": other.id, "count": 20_000})
        tx.execute(text("ANALYZE requests"))

    with store.begin() as tx:
        before = _rows_read(tx)
        assert report_queries.count_requests(tx, timed_sale.id).issued == 60
        assert _rows_read(tx) - before == 101


_MANY_REFUSED = text(
    'INSERT INTO requests (log_id, partition, "offset", coupon_id, user_id, request_id, state, code, attempts,'
    " requested_at, decided_at) SELECT 1, 0, 1000000 + number, :coupon, number, 'request-' || number, 'refused',"
    " 'sold_out', 1, now(), now() FROM generate_series(1, :count) AS number"
)


def _rows_read(tx: Connection) -> int:
    query = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'requests'"
    return int(tx.execute(text(query)).scalar_one())


@pytest.mark.parametrize("queries", range(3))
def test_a_report_ends_before_its_next_query_when_its_caller_has_gone(
    resources: Resources, make_coupon: MakeCoupon, store: Engine, queries: int
) -> None:
    """Also when no query was in progress that could be cancelled."""
    cancellation, executed = Cancellation(), []

    def request_after_queries(_: object, __: object, statement: str, *___: object) -> None:
        if "FROM requests" in statement:
            executed.append(statement)
        if len(executed) == queries:
            cancellation.request()

    event.listen(store, "after_cursor_execute", request_after_queries)
    with pytest.raises(Cancelled):
        service_resources.coupon_reporter(resources).report(make_coupon().id, cancellation)

    assert len(executed) == queries
