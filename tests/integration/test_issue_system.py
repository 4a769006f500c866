"""A system that fails while a poll is decided: locks that do not come, connections that are cut, others at work."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DBAPIError

from service.domain.coupon import Coupon
from service.domain.decide import Outcome
from service.domain.failures import FailureClass, classify
from service.domain.record import Record
from service.domain.request import RequestState
from service.domain.request_id import RequestIds
from service.store import coupons, requests
from service.stream.codec import RecordReader
from service.usecases.issue import Issuer
from tests.builders import insert_request, records, request
from tests.integration.conftest import Ask
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
Line = Callable[..., list[Record]]
_ROWS = 'SELECT user_id, state, sequence FROM requests WHERE coupon_id = :id ORDER BY "offset"'


@pytest.fixture
def line(reader: RecordReader, ids: RequestIds) -> Line:
    """Records of users, one after another."""
    return lambda coupon, users, **more: records(reader, ids, coupon.id, users, **more)


def _impatient(engine: Engine) -> None:
    """Lets statements wait for locks for a tenth of a second only."""

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")


def test_a_lock_that_does_not_come_is_the_systems_failure(
    spoilt_store: Engine,
    log_id: int,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    line: Line,
    store: Engine,
    ask: Ask,
) -> None:
    """Step 5: raised as it came, no attempt spent, nothing written; the same poll is issued once the lock is free."""
    coupon = make_coupon()
    _impatient(spoilt_store)
    issuer = Issuer(spoilt_store, log_id, notices=True)
    poll = line(coupon, range(1, 4))

    with store.begin() as other:
        coupons.lock(other, [coupon.id])
        with pytest.raises(Exception, match="lock timeout") as caught:
            issuer.issue(poll, positions)

    assert classify(caught.value).failure_class is FailureClass.SYSTEM
    assert ask("SELECT count(*) FROM requests") == [(0,)]
    assert ask("SELECT max(next_offset) FROM offsets") == [(0,)]
    issuer.issue(poll, positions)
    assert len(ask(_ROWS, id=coupon.id)) == 3


def test_a_connection_cut_in_mid_transaction_is_the_systems_failure(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Line, store: Engine, ask: Ask
) -> None:
    """P7: a database that drops the connection loses the whole poll and nothing else; the next try issues it."""
    coupon = make_coupon()
    poll = line(coupon, range(1, 4))

    with ThreadPoolExecutor(1) as pool, store.begin() as other:
        coupons.lock(other, [coupon.id])
        cut = pool.submit(issuer.issue, poll, positions)
        waiting = eventually(lambda: ask("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": waiting[0].pid})
        error = cut.exception()

    assert error is not None
    assert classify(error).failure_class is FailureClass.SYSTEM
    assert ask("SELECT count(*) FROM requests") == [(0,)]
    issuer.issue(poll, positions)
    assert [row.sequence for row in ask(_ROWS, id=coupon.id)] == [1, 2, 3]


def test_a_poll_is_decided_from_what_is_read_under_the_lock(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Line, store: Engine, ask: Ask
) -> None:
    """Step 4: the issuer waits for whoever decides about the coupon, and nobody is held for having met him."""
    coupon = make_coupon(quantity=2)

    with ThreadPoolExecutor(1) as pool, store.begin() as other:
        coupons.lock(other, [coupon.id])
        insert_request(other, 99, coupon_id=coupon.id, user_id=99, sequence=1, log_id=2)
        late = pool.submit(issuer.issue, line(coupon, range(1, 3)), positions)
        eventually(lambda: ask("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.commit()
        late.result()

    assert ask(_ROWS + ", user_id", id=coupon.id) == [(1, "issued", 2), (2, "refused", None), (99, "issued", 1)]


def test_an_issuer_that_freezes_before_its_commit_lets_its_locks_go(
    store: Engine, spoilt_store: Engine, log_id: int, make_coupon: MakeCoupon
) -> None:
    """P7: PostgreSQL ends the transaction of a process that has written and does not commit; a successor goes on."""
    coupon = make_coupon()
    frozen, thawed = Event(), Event()

    def write() -> None:
        with spoilt_store.begin() as tx:
            coupons.lock(tx, [coupon.id])
            issued = Outcome(request(0, coupon_id=coupon.id), RequestState.ISSUED, None, 1)
            requests.insert(tx, log_id, requests.insert_columns([issued]), datetime.now(UTC))
            frozen.set()
            thawed.wait()

    def locked() -> bool:
        with store.begin() as tx:
            return bool(coupons.lock(tx, [coupon.id]))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        assert frozen.wait(10)
        try:
            assert eventually(locked)
        finally:
            thawed.set()
        assert isinstance(writing.exception(), DBAPIError)


def test_a_frozen_issuers_locks_end_by_themselves(store: Engine) -> None:
    """P7: every connection has limits for locks, statements and idle transactions, set where it is built."""
    with store.begin() as tx:
        limits = {
            name: tx.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        }

    assert limits == {
        "lock_timeout": "3s",
        "statement_timeout": "5s",
        "idle_in_transaction_session_timeout": "5s",
    }
