"""Records that fail by themselves, and a system that does, while a poll is decided."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, event, text

from service.domain.coupon import Coupon
from service.domain.fates import Fate, failure_of
from service.domain.record import Record
from service.domain.request import Place
from service.domain.request_id import RequestIds
from service.store import coupons
from service.stream.codec import Reader
from service.stream.partitioner import partition_of
from service.usecases.issue import Issuer
from tests.builders import PARTITIONS, insert_request, raw, records
from tests.integration.conftest import Ask
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
Line = Callable[..., list[Record]]
_ROWS = 'SELECT user_id, state, sequence FROM requests WHERE coupon_id = :id ORDER BY "offset"'


@pytest.fixture
def line(reader: Reader, ids: RequestIds) -> Line:
    """Records of users, one after another."""
    return lambda coupon, users, **more: records(reader, ids, coupon.id, users, **more)


def test_one_bad_record_of_500_is_held_and_the_others_are_issued(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Line, ask: Ask
) -> None:
    """Step 5: its seat is held for a retry, the partition goes on, and nobody after it notices."""
    coupon = make_coupon(quantity=1000)
    partition = partition_of(coupon.id, PARTITIONS)

    issued = issuer.issue(line(coupon, range(1, 501), faults={300: "22012 1"}), positions)

    rows = ask(_ROWS, id=coupon.id)
    assert [row.sequence for row in rows if row.user_id != 300] == list(range(1, 500))
    assert rows[299] == (300, "retrying", None)
    assert ask("SELECT issued, held FROM coupons") == [(499, 1)]
    assert issued.held == [Place(partition, 299)]
    assert issued.positions[partition] == 500
    (retry,) = ask('SELECT "offset" AS at, attempts, error_kind, next_attempt_at FROM retries')
    assert (retry.at, retry.attempts, retry.error_kind) == (299, 1, "psycopg.errors.DivisionByZero")


def test_who_follows_a_held_seat_stands_by(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Line, ask: Ask
) -> None:
    """P5: with the last seat held, the next ones wait and do not hear sold_out."""
    coupon = make_coupon(quantity=3)

    issuer.issue(line(coupon, range(1, 7), faults={2: "22012 1"}), positions)

    assert ask(_ROWS, id=coupon.id) == [
        (1, "issued", 1),
        (2, "retrying", None),
        (3, "issued", 2),
        *[(user, "standby", None) for user in (4, 5, 6)],
    ]
    assert ask("SELECT count(*) FROM requests WHERE state = 'standby' AND decided_at IS NULL") == [(3,)]


def test_only_what_would_be_issued_can_fail(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Line, ask: Ask
) -> None:
    """Step 5: a request that is refused is answered, not retried."""
    coupon = make_coupon(quantity=1)

    issuer.issue(line(coupon, range(1, 3), faults={2: "22012 9"}), positions)

    assert ask(_ROWS, id=coupon.id) == [(1, "issued", 1), (2, "refused", None)]


def test_poison_beside_good_records_is_kept_as_it_came(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    line: Line,
    reader: Reader,
    ask: Ask,
) -> None:
    """Step 5: what cannot be read goes to the dead letters, raw bytes and all, and the partition goes on."""
    coupon = make_coupon()
    good = line(coupon, range(1, 4))
    headers = (("request_id", b"\xff\x00"), ("nothing", None), ("twice", b"1"), ("twice", b"2"))
    bad = good[1].raw._replace(key=b"\x00\xff", value=b'{"userId":NaN\x00\xff', headers=headers)

    issued = issuer.issue([good[0], reader.read(bad), good[2]], positions)

    assert ask(_ROWS, id=coupon.id) == [(1, "issued", 1), (3, "issued", 2)]
    assert issued.dead
    assert issued.positions[bad.place.partition] == 3
    (letter,) = ask(
        'SELECT key, value, headers, code, attempts, partition, "offset" AS at, request_id FROM dead_letters'
    )
    assert (letter.key, letter.value) == (bad.key, bad.value)
    assert letter.headers == [["request_id", "/wA="], ["nothing", None], ["twice", "MQ=="], ["twice", "Mg=="]]
    assert (letter.code, letter.attempts, letter.request_id) == ("poison", 1, None)
    assert Place(letter.partition, letter.at) == bad.place


def _impatient(engine: Engine) -> None:
    """Lets statements wait for locks for a tenth of a second only."""

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")


def test_a_lock_that_does_not_come_is_the_systems_failure(
    spoilt_store: Engine,
    log: int,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    line: Line,
    store: Engine,
    ask: Ask,
) -> None:
    """Step 5: raised as it came, no attempt spent, nothing written; the same poll is issued once the lock is free."""
    coupon = make_coupon()
    _impatient(spoilt_store)
    issuer = Issuer(spoilt_store, log, notices=True)
    poll = line(coupon, range(1, 4))

    with store.begin() as other:
        coupons.lock(other, [coupon.id])
        with pytest.raises(Exception, match="lock timeout") as caught:
            issuer.issue(poll, positions)

    assert failure_of(caught.value).fate is Fate.SYSTEM
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
    assert failure_of(error).fate is Fate.SYSTEM
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
        insert_request(other, 99, coupon_id=coupon.id, user_id=99, sequence=1, log=2)
        late = pool.submit(issuer.issue, line(coupon, range(1, 3)), positions)
        eventually(lambda: ask("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.commit()
        late.result()

    assert ask(_ROWS + ", user_id", id=coupon.id) == [(1, "issued", 2), (2, "refused", None), (99, "issued", 1)]


def test_a_frozen_issuers_locks_end_by_themselves(store: Engine) -> None:
    """P7: every connection has limits for locks, statements and idle transactions, set where it is built."""
    with store.begin() as tx:
        limits = {
            name: tx.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
        }

    assert limits == {
        "lock_timeout": "3s",
        "statement_timeout": "10s",
        "idle_in_transaction_session_timeout": "5s",
    }


def test_a_record_that_was_read_as_foreign_is_judged_by_its_append_time(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, reader: Reader, ids: RequestIds, ask: Ask
) -> None:
    """Step 2: a stranger's record before the opening is refused in the row, ours at the same moment is issued."""
    coupon = make_coupon(opens_at_ms=2**42)
    ours = raw(ids, coupon.id, 1, 0)
    theirs = raw(ids, coupon.id, 2, 1)._replace(headers=())

    issuer.issue([reader.read(ours), reader.read(theirs)], positions)

    assert ask("SELECT state, code FROM requests ORDER BY user_id") == [("issued", None), ("refused", "not_open")]
