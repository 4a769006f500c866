"""Deciding a batch: one transaction, in offset order."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from service.domain.coupon import Coupon
from service.domain.errors import Fenced
from service.domain.record import Record
from service.domain.request import ReasonCode, RequestState
from service.domain.request_id import RequestIds
from service.store.outbox import OutboxKind
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.usecases.issue import Issuer
from service.usecases.write_plan import IssueResult
from tests.builders import PARTITIONS, TOPIC_ID, key_register, raw, records
from tests.integration.conftest import Query

MakeCoupon = Callable[..., Coupon]
Issue = Callable[[list[Record], dict[int, int]], IssueResult]
_ROWS = 'SELECT user_id, state, code, sequence FROM requests WHERE coupon_id = :id ORDER BY "offset"'
_TABLES = "requests", "outbox", "retries", "dead_letters"


@pytest.fixture
def make_records(reader: RecordReader, ids: RequestIds) -> Callable[..., list[Record]]:
    """Create records of users in offset order: `make_records(coupon, range(1, 5), first=7, faults={2: "22012 1"})`."""
    return lambda coupon, users, **options: records(reader, ids, coupon.id, users, **options)


@pytest.fixture(params=["issue", "issue_any"])
def issue(issuer: Issuer, request: pytest.FixtureRequest) -> Issue:
    """Issue a batch: in two messages where it is plain, or always one statement after the other."""
    decide_batch: Issue = getattr(issuer, request.param)
    return decide_batch


def _partition(coupon: Coupon) -> int:
    return partition_of(coupon.id, PARTITIONS)


def _row_counts(query: Query) -> dict[str, int]:
    return {table: query(f"SELECT count(*) FROM {table}")[0][0] for table in _TABLES}


def test_a_batch_is_issued_in_offset_order(
    issue: Issue,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: Callable[..., list[Record]],
    query: Query,
) -> None:
    """P3: rows, sequences, counters, outbox entries and checkpoint are all written, with sequences in offset order."""
    coupon = make_coupon(quantity=3)
    partition = _partition(coupon)

    issued = issue(make_records(coupon, range(1, 6)), positions)

    assert query(_ROWS, id=coupon.id) == [
        *[(user, "issued", None, user) for user in (1, 2, 3)],
        *[(user, "refused", "sold_out", None) for user in (4, 5)],
    ]
    assert query("SELECT issued, held FROM coupons") == [(3, 0)]
    assert query("SELECT next_offset FROM offsets WHERE partition = :p", p=partition) == [(5,)]
    assert query("SELECT kind, partition, first_offset, last_offset FROM outbox ORDER BY kind") == [
        ("gate", partition, 0, 4),
        ("notify", partition, 0, 4),
    ]
    assert query("SELECT DISTINCT decided_at FROM outbox") == query("SELECT DISTINCT decided_at FROM requests")
    assert issued.next_offsets == {partition: 5}
    assert issued.outbox_kinds == {OutboxKind.NOTIFY, OutboxKind.GATE}
    assert issued.counts == {(RequestState.ISSUED, None): 3, (RequestState.REFUSED, ReasonCode.SOLD_OUT): 2}


def test_without_a_webhook_there_are_no_outbox_entries(
    store: Engine,
    log_id: int,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: Callable[..., list[Record]],
    query: Query,
) -> None:
    """Without a webhook URL no notice is due, and while seats are free the gate needs no update."""
    issued = Issuer(store, log_id, key_register(), notices=False).issue(
        make_records(make_coupon(quantity=9), range(1, 4)), positions
    )

    assert issued.outbox_kinds == set()
    assert _row_counts(query)["outbox"] == 0


def test_a_redelivery_changes_nothing(
    issue: Issue,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: Callable[..., list[Record]],
    ids: RequestIds,
    reader: RecordReader,
    query: Query,
) -> None:
    """P2: a second record with a decided request id advances the checkpoint and changes nothing else."""
    coupon = make_coupon(quantity=3)
    first = make_records(coupon, range(1, 5))
    next_offsets = issue(first, positions).next_offsets
    before = query(_ROWS, id=coupon.id), query("SELECT issued, held FROM coupons")
    redelivered = [
        reader.decode(raw(ids, coupon.id, index + 1, index + 4, request_id=record.request.request_id), TOPIC_ID)
        for index, record in enumerate(first)
        if record.request
    ]

    issued = issue(redelivered, next_offsets)

    assert issued.counts == {}
    assert issued.next_offsets[_partition(coupon)] == 8
    assert (query(_ROWS, id=coupon.id), query("SELECT issued, held FROM coupons")) == before


def test_a_fenced_issuer_writes_nothing(
    issue: Issue,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: Callable[..., list[Record]],
    query: Query,
) -> None:
    """P7: an issuer is fenced off when another has advanced one of its partitions; nothing of its batch is written."""
    coupon = make_coupon()
    others = iter(make_coupon, None)
    fenced_coupon = next(other for other in others if _partition(other) != _partition(coupon))
    issue(make_records(fenced_coupon, range(1, 3)), positions)
    before = _row_counts(query), query("SELECT partition, next_offset FROM offsets ORDER BY 1")

    with pytest.raises(Fenced) as fenced:
        issue([*make_records(coupon, range(1, 3)), *make_records(fenced_coupon, range(3, 5))], positions)

    assert fenced.value.partitions == {_partition(fenced_coupon)}
    assert (_row_counts(query), query("SELECT partition, next_offset FROM offsets ORDER BY 1")) == before


def test_an_unknown_coupon_is_refused(
    issue: Issue, positions: dict[int, int], reader: RecordReader, ids: RequestIds, query: Query
) -> None:
    """The refusal is a business answer: a final row, without a coupon."""
    issue(records(reader, ids, 999, range(1, 2)), positions)

    assert query(_ROWS, id=999) == [(1, "refused", "unknown_coupon", None)]


def test_coupons_of_one_batch_have_their_own_counts_and_sequences(
    issue: Issue,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    make_records: Callable[..., list[Record]],
    query: Query,
) -> None:
    """P1, P3: in one batch over all partitions each coupon has its own count and sequences."""
    coupons = [make_coupon(quantity=index + 1) for index in range(12)]
    next_offsets = dict.fromkeys(range(PARTITIONS), 0)
    batch = []
    for coupon in coupons:
        batch += make_records(coupon, range(1, 9), first=next_offsets[_partition(coupon)])
        next_offsets[_partition(coupon)] += 8

    issued = issue(batch, positions)

    assert issued.next_offsets == next_offsets
    for coupon in coupons:
        sequences = [row.sequence for row in query(_ROWS, id=coupon.id)]
        assert sequences == [*range(1, coupon.quantity + 1), *[None] * (8 - min(8, coupon.quantity))][:8]


def test_a_foreign_record_is_checked_against_the_window_by_its_append_time(
    issue: Issue,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
) -> None:
    """A foreign record before the opening is refused; ours of the same time passed the gate and is issued."""
    coupon = make_coupon(opens_at_ms=2**42)
    our_record = raw(ids, coupon.id, 1, 0)
    foreign_record = raw(ids, coupon.id, 2, 1)._replace(headers=())

    issue([reader.decode(our_record, TOPIC_ID), reader.decode(foreign_record, TOPIC_ID)], positions)

    assert query("SELECT state, code FROM requests ORDER BY user_id") == [("issued", None), ("refused", "not_open")]
