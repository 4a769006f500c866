"""The system fails while a batch is decided: locks are not granted, connections are cut, other writers are active."""

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
from tests.builders import insert_request, key_register, records, request
from tests.integration.conftest import Query
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
MakeRecords = Callable[..., list[Record]]
_ROWS = 'SELECT user_id, state, sequence FROM requests WHERE coupon_id = :id ORDER BY "offset"'


@pytest.fixture
def make_records(reader: RecordReader, ids: RequestIds) -> MakeRecords:
    """Create records of users in offset order."""
    return lambda coupon, users, **options: records(reader, ids, coupon.id, users, **options)


def _limit_lock_timeout(engine: Engine) -> None:
    """Limit the wait for a lock to a tenth of a second."""

    @event.listens_for(engine, "begin")
    def _set_lock_timeout(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")


def test_a_lock_timeout_is_a_system_failure(
    separate_store: Engine,
    log_id: int,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: MakeRecords,
    store: Engine,
    query: Query,
) -> None:
    """Nothing is written and no attempt counts; the same batch is issued when the lock is free."""
    coupon = make_coupon()
    _limit_lock_timeout(separate_store)
    issuer = Issuer(separate_store, log_id, key_register(), notices=True)
    batch = make_records(coupon, range(1, 4))

    with store.begin() as other:
        coupons.lock(other, [coupon.id])
        with pytest.raises(Exception, match="lock timeout") as caught:
            issuer.issue(batch, positions)

    assert classify(caught.value).failure_class is FailureClass.SYSTEM
    assert query("SELECT count(*) FROM requests") == [(0,)]
    assert query("SELECT max(next_offset) FROM offsets") == [(0,)]
    issuer.issue(batch, positions)
    assert len(query(_ROWS, id=coupon.id)) == 3


def test_a_connection_cut_in_a_transaction_is_a_system_failure(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: MakeRecords,
    store: Engine,
    query: Query,
) -> None:
    """P7: a cut connection rolls back the whole batch and nothing else; the next try issues it."""
    coupon = make_coupon()
    batch = make_records(coupon, range(1, 4))

    with ThreadPoolExecutor(1) as pool, store.begin() as other:
        coupons.lock(other, [coupon.id])
        issuing = pool.submit(issuer.issue, batch, positions)
        waiting = eventually(lambda: query("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": waiting[0].pid})
        error = issuing.exception()

    assert error is not None
    assert classify(error).failure_class is FailureClass.SYSTEM
    assert query("SELECT count(*) FROM requests") == [(0,)]
    issuer.issue(batch, positions)
    assert [row.sequence for row in query(_ROWS, id=coupon.id)] == [1, 2, 3]


def test_a_batch_is_decided_from_rows_read_under_the_lock(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: MakeRecords,
    store: Engine,
    query: Query,
) -> None:
    """The issuer waits for another writer of the coupon, then decides from what it wrote, and holds no request."""
    coupon = make_coupon(quantity=2)

    with ThreadPoolExecutor(1) as pool, store.begin() as other:
        coupons.lock(other, [coupon.id])
        insert_request(other, 99, coupon_id=coupon.id, user_id=99, sequence=1, log_id=2)
        issuing = pool.submit(issuer.issue, make_records(coupon, range(1, 3)), positions)
        eventually(lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.commit()
        issuing.result()

    assert query(_ROWS + ", user_id", id=coupon.id) == [(1, "issued", 2), (2, "refused", None), (99, "issued", 1)]


def test_the_locks_of_an_issuer_that_freezes_before_its_commit_are_released(
    store: Engine, separate_store: Engine, log_id: int, make_coupon: MakeCoupon
) -> None:
    """P7: PostgreSQL ends the transaction of a process that does not commit, and a successor continues."""
    coupon = make_coupon()
    frozen, thawed = Event(), Event()

    def write() -> None:
        with separate_store.begin() as tx:
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


def test_every_connection_limits_locks_statements_and_idle_transactions(store: Engine) -> None:
    """P7: the limits are set where the engine is built, so a frozen process keeps its locks for seconds only."""
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
