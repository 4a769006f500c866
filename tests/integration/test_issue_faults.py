"""Records that fail by themselves while a batch is decided."""

import math
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from service.domain.coupon import Coupon
from service.domain.record import Record
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.usecases import issue
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.issue import Issuer
from tests.builders import PARTITIONS, TOPIC_ID, records
from tests.integration.conftest import Query

MakeCoupon = Callable[..., Coupon]
MakeRecords = Callable[..., list[Record]]
_CHECKPOINTS = (
    "SELECT partition, next_offset FROM offsets WHERE partition IN (:here, :there) ORDER BY partition = :there"
)
_OUTBOX = "SELECT kind, partition, first_offset, last_offset FROM outbox"
_ROWS = 'SELECT user_id, state, sequence FROM requests WHERE coupon_id = :id ORDER BY "offset"'


@pytest.fixture(autouse=True)
def _no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the number of failures end a batch early, however slow the machine is."""
    monkeypatch.setattr(issue, "MAX_FAILURE_SECONDS", math.inf)


@pytest.fixture
def make_records(reader: RecordReader, ids: RequestIds) -> MakeRecords:
    """Create records of users in offset order."""
    return lambda coupon, users, **options: records(reader, ids, coupon.id, users, **options)


def test_one_bad_record_of_500_is_held_and_the_others_are_issued(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, make_records: MakeRecords, query: Query
) -> None:
    """P3: the failed request's seat is held for a retry, and the other requests are issued without a delay."""
    coupon = make_coupon(quantity=1000)
    partition = partition_of(coupon.id, PARTITIONS)

    issued = issuer.issue(make_records(coupon, range(1, 501), faults={300: "22012 1"}), positions)

    rows = query(_ROWS, id=coupon.id)
    assert [row.sequence for row in rows if row.user_id != 300] == list(range(1, 500))
    assert rows[299] == (300, "retrying", None)
    assert query("SELECT issued, held FROM coupons") == [(499, 1)]
    assert issued.held == [LogPosition(partition, 299)]
    assert issued.next_offsets[partition] == 500
    (retry,) = query('SELECT "offset", attempts, error_type, next_attempt_at FROM retries')
    assert (retry.offset, retry.attempts, retry.error_type) == (299, 1, "psycopg.errors.DivisionByZero")


def test_a_request_that_a_constraint_rejects_is_held(
    issuer: Issuer,
    admin: Engine,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: MakeRecords,
    query: Query,
) -> None:
    """The write probe returns the driver's error of each request and leaves nothing behind."""
    coupon = make_coupon(quantity=8)
    with admin.begin() as tx:
        tx.execute(
            text("ALTER TABLE requests ADD CONSTRAINT odd CHECK (state <> 'issued' OR user_id % 3 > 0) NOT VALID")
        )
    try:
        issuer.issue(make_records(coupon, range(1, 11)), positions)
    finally:
        with admin.begin() as tx:
            tx.execute(text("ALTER TABLE requests DROP CONSTRAINT odd"))

    assert query(_ROWS, id=coupon.id) == [
        (1, "issued", 1),
        (2, "issued", 2),
        (3, "retrying", None),
        (4, "issued", 3),
        (5, "issued", 4),
        (6, "retrying", None),
        (7, "issued", 5),
        (8, "issued", 6),
        (9, "standby", None),
        (10, "standby", None),
    ]
    assert query("SELECT issued, held, standby FROM coupons") == [(6, 2, 2)]
    held = query("SELECT error_type, error_message FROM retries WHERE attempts = 1")
    assert {row.error_type for row in held} == {"psycopg.errors.CheckViolation"}
    assert all('violates check constraint "odd"' in row.error_message for row in held)
    assert all("DETAIL:  Failing row contains" in row.error_message for row in held)


@pytest.mark.parametrize("sqlstate", ["22012", "22XYZ"], ids=["a known SQLSTATE", "an unknown SQLSTATE"])
def test_a_batch_with_many_failures_ends_early(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: MakeRecords,
    query: Query,
    sqlstate: str,
) -> None:
    """A batch with many failures does not lock its coupons until the last one; what it did not reach has no notice."""
    coupon, other = _on_two_partitions(make_coupon)
    here, there = (partition_of(each.id, PARTITIONS) for each in (coupon, other))
    users = range(1, 3 * MAX_FAILURES_PER_TRANSACTION + 1)  # all but the first and the last fail
    failing = dict.fromkeys(users[1:-1], f"{sqlstate} 1")
    batch = [*make_records(coupon, users, faults=failing), *make_records(other, range(1, 2))]

    first = issuer.issue(batch, positions)

    decided = 3 * MAX_FAILURES_PER_TRANSACTION // 2  # two segments, a quarter of the batch each
    assert (first.record_count, first.next_offsets) == (decided, {here: decided})
    assert query("SELECT id, issued, held FROM coupons ORDER BY id")[:1] == [(coupon.id, 1, decided - 1)]
    assert query(_CHECKPOINTS, here=here, there=there) == [(here, decided), (there, 0)]
    assert query(_OUTBOX) == [("notify", here, 0, decided - 1)]

    second = issuer.issue(batch[decided:], positions | first.next_offsets)

    assert second.next_offsets == {here: len(users), there: 1}
    assert query("SELECT issued, held FROM coupons WHERE id = :id", id=coupon.id) == [(2, len(users) - 2)]


def _on_two_partitions(make_coupon: MakeCoupon) -> tuple[Coupon, Coupon]:
    """Create two coupons on different partitions."""
    coupon = make_coupon(quantity=1000)
    others = iter(make_coupon, None)
    partition = partition_of(coupon.id, PARTITIONS)
    return coupon, next(other for other in others if partition_of(other.id, PARTITIONS) != partition)


def test_requests_behind_a_held_last_seat_are_on_standby(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, make_records: MakeRecords, query: Query
) -> None:
    """P5: while the last seat is held, the next requests are on standby and not refused sold_out."""
    coupon = make_coupon(quantity=3)

    issuer.issue(make_records(coupon, range(1, 7), faults={2: "22012 1"}), positions)

    assert query(_ROWS, id=coupon.id) == [
        (1, "issued", 1),
        (2, "retrying", None),
        (3, "issued", 2),
        *[(user, "standby", None) for user in (4, 5, 6)],
    ]
    assert query("SELECT count(*) FROM requests WHERE state = 'standby' AND decided_at IS NULL") == [(3,)]


def test_a_request_that_is_refused_cannot_fail(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, make_records: MakeRecords, query: Query
) -> None:
    """A refused request is answered, not retried."""
    coupon = make_coupon(quantity=1)

    issuer.issue(make_records(coupon, range(1, 3), faults={2: "22012 9"}), positions)

    assert query(_ROWS, id=coupon.id) == [(1, "issued", 1), (2, "refused", None)]


def test_poison_is_stored_with_its_raw_bytes(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: MakeRecords,
    reader: RecordReader,
    query: Query,
) -> None:
    """An unreadable record becomes a dead letter with its raw bytes, and the partition continues."""
    coupon = make_coupon()
    good = make_records(coupon, range(1, 4))
    headers = (("request_id", b"\xff\x00"), ("nothing", None), ("twice", b"1"), ("a\x00\\é", b"2"))
    bad = good[1].raw._replace(key=b"\x00\xff", value=b'{"userId":NaN\x00\xff', headers=headers)

    issued = issuer.issue([good[0], reader.decode(bad, TOPIC_ID), good[2]], positions)

    assert query(_ROWS, id=coupon.id) == [(1, "issued", 1), (3, "issued", 2)]
    assert issued.has_dead_letters
    assert issued.next_offsets[bad.log_position.partition] == 3
    (dead_letter,) = query(
        'SELECT key, value, headers, code, attempts, partition, "offset", request_id FROM dead_letters'
    )
    assert (dead_letter.key, dead_letter.value) == (bad.key, bad.value)
    assert dead_letter.headers == [
        ["request_id", "/wA="],
        ["nothing", None],
        ["twice", "MQ=="],
        ["a\\x00\\\\\\xe9", "Mg=="],
    ]
    assert (dead_letter.code, dead_letter.attempts, dead_letter.request_id) == ("poison", 1, None)
    assert LogPosition(dead_letter.partition, dead_letter.offset) == bad.log_position
