"""Records that fail by themselves, and a system that does, while a poll is decided."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from service.domain.coupon import Coupon
from service.domain.record import Record
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.usecases.batch_bisect import MAX_FAILURES_PER_TRANSACTION
from service.usecases.issue import Issuer
from tests.builders import PARTITIONS, records
from tests.integration.conftest import Ask

MakeCoupon = Callable[..., Coupon]
Line = Callable[..., list[Record]]
_STANDS = "SELECT partition, next_offset FROM offsets WHERE partition IN (:here, :there) ORDER BY partition = :there"
_HANDED_OFF = "SELECT kind, partition, first_offset, last_offset FROM outbox"
_ROWS = 'SELECT user_id, state, sequence FROM requests WHERE coupon_id = :id ORDER BY "offset"'


@pytest.fixture
def line(reader: RecordReader, ids: RequestIds) -> Line:
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
    assert issued.held == [LogPosition(partition, 299)]
    assert issued.next_offsets[partition] == 500
    (retry,) = ask('SELECT "offset" AS at, attempts, error_type, next_attempt_at FROM retries')
    assert (retry.at, retry.attempts, retry.error_type) == (299, 1, "psycopg.errors.DivisionByZero")


def test_what_the_database_itself_will_not_have_issued_is_held(
    issuer: Issuer, store: Engine, positions: dict[int, int], make_coupon: MakeCoupon, line: Line, ask: Ask
) -> None:
    """Step 5: told one by one, as the driver would have told it, with nothing of the trial left behind."""
    coupon = make_coupon(quantity=8)
    with store.begin() as tx:
        tx.execute(
            text("ALTER TABLE requests ADD CONSTRAINT odd CHECK (state <> 'issued' OR user_id % 3 > 0) NOT VALID")
        )
    try:
        issuer.issue(line(coupon, range(1, 11)), positions)
    finally:
        with store.begin() as tx:
            tx.execute(text("ALTER TABLE requests DROP CONSTRAINT odd"))

    assert ask(_ROWS, id=coupon.id) == [
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
    assert ask("SELECT issued, held, standby FROM coupons") == [(6, 2, 2)]
    told = ask("SELECT error_type, error_message FROM retries WHERE attempts = 1")
    assert {row.error_type for row in told} == {"psycopg.errors.CheckViolation"}
    assert all('violates check constraint "odd"' in row.error_message for row in told)
    assert all("DETAIL:  Failing row contains" in row.error_message for row in told)


@pytest.mark.parametrize("sqlstate", ["22012", "22XYZ"], ids=["a known error", "one without a class"])
def test_a_poll_full_of_bad_records_is_cut_short(
    issuer: Issuer, positions: dict[int, int], make_coupon: MakeCoupon, line: Line, ask: Ask, sqlstate: str
) -> None:
    """Step 5: coupons are not locked until the last of thousands was split off; what it did not come to is not told."""
    coupon, other = _on_two_partitions(make_coupon)
    here, there = (partition_of(one.id, PARTITIONS) for one in (coupon, other))
    users = range(1, 3 * MAX_FAILURES_PER_TRANSACTION + 1)  # the first and the last are good
    poll = line(coupon, users, faults=dict.fromkeys(users[1:-1], f"{sqlstate} 1")) + line(other, range(1, 2))

    first = issuer.issue(poll, positions)

    decided = 3 * MAX_FAILURES_PER_TRANSACTION // 2  # two segments of a quarter each
    assert (first.record_count, first.next_offsets) == (decided, {here: decided})
    assert ask("SELECT id, issued, held FROM coupons ORDER BY id")[:1] == [(coupon.id, 1, decided - 1)]
    assert ask(_STANDS, here=here, there=there) == [(here, decided), (there, 0)]
    assert ask(_HANDED_OFF) == [("notify", here, 0, decided - 1)]

    second = issuer.issue(poll[decided:], positions | first.next_offsets)

    assert second.next_offsets == {here: len(users), there: 1}
    assert ask("SELECT issued, held FROM coupons WHERE id = :id", id=coupon.id) == [(2, len(users) - 2)]


def _on_two_partitions(make_coupon: MakeCoupon) -> tuple[Coupon, Coupon]:
    coupon = make_coupon(quantity=1000)
    others = iter(make_coupon, None)
    home = partition_of(coupon.id, PARTITIONS)
    return coupon, next(one for one in others if partition_of(one.id, PARTITIONS) != home)


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
    reader: RecordReader,
    ask: Ask,
) -> None:
    """Step 5: what cannot be read goes to the dead letters, raw bytes and all, and the partition goes on."""
    coupon = make_coupon()
    good = line(coupon, range(1, 4))
    headers = (("request_id", b"\xff\x00"), ("nothing", None), ("twice", b"1"), ("a\x00\\é", b"2"))
    bad = good[1].raw._replace(key=b"\x00\xff", value=b'{"userId":NaN\x00\xff', headers=headers)

    issued = issuer.issue([good[0], reader.decode(bad), good[2]], positions)

    assert ask(_ROWS, id=coupon.id) == [(1, "issued", 1), (3, "issued", 2)]
    assert issued.has_dead_letters
    assert issued.next_offsets[bad.log_position.partition] == 3
    (letter,) = ask(
        'SELECT key, value, headers, code, attempts, partition, "offset" AS at, request_id FROM dead_letters'
    )
    assert (letter.key, letter.value) == (bad.key, bad.value)
    assert letter.headers == [["request_id", "/wA="], ["nothing", None], ["twice", "MQ=="], ["a\\x00\\\\\\xe9", "Mg=="]]
    assert (letter.code, letter.attempts, letter.request_id) == ("poison", 1, None)
    assert LogPosition(letter.partition, letter.at) == bad.log_position
