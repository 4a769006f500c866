"""Plain batches leave the same rows as any other batch, and a process that freezes in one loses its locks."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from random import Random
from threading import Event
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from psycopg import generators
from sqlalchemy import Connection, Engine, text

from service import crash_points
from service.crash_points import CrashPoint
from service.domain.coupon import Coupon, Override
from service.domain.dead_letter import DeadLetterFilter
from service.domain.errors import Fenced
from service.domain.failures import FailureClass, classify
from service.domain.record import RawRecord, Record
from service.domain.request import LogPosition, RequestState
from service.domain.request_id import RequestIds
from service.store import checkpoints, coupons, logs, pipeline, requests
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.stream.topics import Topic
from service.usecases import issue_plain
from service.usecases.coupons import CouponService
from service.usecases.issue import Issuer
from service.usecases.recover import Recoverer
from service.usecases.replay import DeadLetterService
from service.usecases.write_plan import IssueResult
from tests.builders import PARTITIONS, TOPIC_ID, insert_request, key_register, raw, records
from tests.fixtures.resources import TABLES
from tests.integration.conftest import Query
from tests.waiting import eventually

MakeCoupon = Callable[..., Coupon]
_COUPONS, _USERS, _STEPS = range(1, 6), range(1, 13), 30
_UNKNOWN_COUPON = 999
#: everything that a batch writes; times of the database are compared with each other
_ROWS = (
    (
        'SELECT partition, "offset", coupon_id, user_id, request_id, state, code, sequence, attempts, requested_at,'
        " decided_at IS NULL FROM requests ORDER BY 1, 2"
    ),
    "SELECT id, quantity, issued, held, standby, override, version FROM coupons ORDER BY id",
    "SELECT partition, next_offset, advanced_to, watermark FROM offsets ORDER BY 1",
    "SELECT kind, partition, first_offset, last_offset FROM outbox ORDER BY id",
    'SELECT partition, "offset", attempts, error_type FROM retries ORDER BY 1, 2',
    'SELECT partition, "offset", attempt, error_type, dead_code FROM failed_attempts ORDER BY 1, 2, 3',
    (
        'SELECT partition, "offset", code, attempts, state, key, value, headers, appended_at, first_error, error_type,'
        " error_message, coupon_id, user_id, request_id FROM dead_letters ORDER BY 1, 2"
    ),
    # which decisions each entry of the outbox selects
    (
        "SELECT outbox.id, count(requests) FROM outbox LEFT JOIN requests USING (log_id, partition, decided_at)"
        ' WHERE "offset" BETWEEN first_offset AND last_offset GROUP BY 1 ORDER BY 1'
    ),
)


class CountingIssuer(Issuer):
    """Counts the batches that were not plain."""

    any_batches = 0

    def issue_any(self, *batch: Any, **options: Any) -> IssueResult:
        """Issue a batch."""
        self.any_batches += 1
        return super().issue_any(*batch, **options)


@pytest.fixture
def issuer(store: Engine, log_id: int) -> CountingIssuer:
    """Decides batches, and counts those that were not plain."""
    return CountingIssuer(store, log_id, key_register(), notices=True)


class Step(NamedTuple):
    """A batch, or another event between two batches."""

    name: str
    coupon_id: int = 0
    batch: tuple[RawRecord, ...] = ()


def _history(random: Random, ids: RequestIds) -> list[Step]:
    """Return a random history of batches, changes, retries and replays."""
    log: dict[int, list[RawRecord]] = {partition: [] for partition in range(PARTITIONS)}

    def append(*, odd: bool) -> RawRecord:
        coupon_id, user_id = random.choice(_COUPONS), random.choice(_USERS)
        kind = random.choice(("fault", "dying", "poison", "foreign", "unknown")) if odd else "plain"
        if kind == "unknown":
            coupon_id = _UNKNOWN_COUPON
        faults = {"fault": "22012 1", "dying": "22012 9"}
        record = raw(ids, coupon_id, user_id, 0, fault=faults.get(kind))
        appended = log[record.log_position.partition]
        if kind == "plain" and appended and random.random() < 0.2:
            record = random.choice(appended)  # a redelivery, or a second record under the same id
        if kind == "poison":
            value, key = random.choice((b"{", b"", None, b"\x00\\'\"{},")), random.choice((b"\x00,", b"", None))
            record = record._replace(value=value, key=key, headers=(('"{\\}', random.choice((b"\x00", None))),))
        if kind == "foreign":
            record = record._replace(headers=())
        position = LogPosition(record.log_position.partition, len(appended))
        appended.append(record._replace(log_position=position))
        return appended[-1]

    steps = [Step("create", coupon_id) for coupon_id in _COUPONS]
    for _ in range(_STEPS):
        name = random.choice(("batch",) * 7 + ("close", "pause", "open", "raise", "retry", "standby", "replay"))
        is_plain = random.random() < 0.7
        size = random.randrange(1, 25) if name == "batch" else 0
        batch = tuple(append(odd=not is_plain and random.random() < 0.3) for _ in range(size))
        steps.append(Step(name, random.choice(_COUPONS), batch))
    return steps


class World:
    """The use cases on an emptied database, which run a history."""

    def __init__(
        self, store: Engine, log_id: int, reader: RecordReader, service: CouponService, dead_letters: DeadLetterService
    ) -> None:
        self.issuer = CountingIssuer(store, log_id, key_register(), notices=True)
        self.batches = 0
        self._store = store
        self._log_id = log_id
        self._reader = reader
        self._service = service
        self._dead_letters = dead_letters
        self._recoverer = Recoverer(store, reader, notices=True)
        beginnings = dict.fromkeys(range(PARTITIONS), 0)
        with store.begin() as tx:
            checkpoints.ensure_checkpoints(tx, log_id, beginnings)
        self._next_offsets = beginnings

    def run(self, step: Step, issue: Callable[..., IssueResult]) -> object:
        """Run a step; return what it returns, as far as it is the same for the same history."""
        if step.name == "batch":
            return self._issue([self._reader.decode(each, TOPIC_ID) for each in step.batch], issue)
        if step.name == "create":
            with self._store.begin() as tx:
                return coupons.create(tx, "a coupon", 2 * step.coupon_id, 0, None, None, "tests").id
        if step.name == "retry":
            self._retry()
        elif step.name == "standby":
            self._recoverer.decide_standby(step.coupon_id)
        elif step.name == "replay":
            self._dead_letters.replay_many(DeadLetterFilter(), 2, dry_run=False)
        else:
            self._change(step)
        return None

    def _issue(self, batch: list[Record], issue: Callable[..., IssueResult]) -> object:
        self.batches += 1
        result = issue(batch, self._next_offsets)
        self._next_offsets |= result.next_offsets
        result.held_failures.clear()  # their messages name the time
        return result

    def _change(self, step: Step) -> None:
        quantity = self._service.get(step.coupon_id).quantity
        values: dict[str, dict[str, Any]] = {
            "close": {"override": Override.CLOSED},
            "pause": {"override": Override.PAUSED},
            "open": {"override": Override.NONE},
            "raise": {"quantity": quantity + 3},
        }
        self._service.change(step.coupon_id, values[step.name])

    def _retry(self) -> None:
        with self._store.begin() as tx:
            rows = tx.execute(
                text(
                    'SELECT partition, "offset", attempts FROM retries WHERE next_attempt_at IS NOT NULL ORDER BY 1, 2'
                )
            ).all()
        for attempts in (1, 2):
            held = [LogPosition(row.partition, row.offset) for row in rows if row.attempts == attempts]
            self._recoverer.retry(self._log_id, held, attempts)


@pytest.mark.parametrize("seed", range(10))
def test_any_history_leaves_the_same_rows_both_ways(
    seed: int,
    store: Engine,
    admin: Engine,
    log_id: int,
    reader: RecordReader,
    ids: RequestIds,
    coupon_service: CouponService,
    dead_letter_service: DeadLetterService,
    query: Query,
) -> None:
    """P1 to P5: plain batches in two messages or one statement after the other: the same rows, results and outbox."""
    history = _history(Random(seed), ids)
    topic_id = query("SELECT topic_id FROM logs WHERE id = :id", id=log_id)[0][0]
    left: list[list[object]] = []
    plain = 0
    for way in ("issue", "issue_any"):
        with admin.begin() as tx:
            tx.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY"))
        with store.begin() as tx:
            new_log = logs.ensure_first(tx, Topic.ISSUE_COUPON, topic_id, "tests")
        world = World(store, new_log.id, reader, coupon_service, dead_letter_service)
        results = [world.run(step, getattr(world.issuer, way)) for step in history]
        plain += world.batches - world.issuer.any_batches
        left.append([*results, *(query(rows) for rows in _ROWS)])

    assert plain > 0
    assert left[0] == left[1]


@contextmanager
def _frozen_at(point: CrashPoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Event, Event]]:
    """Let the thread that reaches the point wait; yield the events that it has reached it and that it may go on."""
    reached, thawed = Event(), Event()

    def reach(at: CrashPoint) -> None:
        if at is point and not reached.is_set():
            reached.set()
            assert thawed.wait(60)

    monkeypatch.setattr(crash_points, "reach", reach)
    try:
        yield reached, thawed
    finally:
        thawed.set()


def _lock(store: Engine, coupon: Coupon) -> bool:
    with store.begin() as tx:
        return bool(coupons.lock(tx, [coupon.id]))


@pytest.mark.parametrize("point", [CrashPoint.ISSUER_LOCKED, CrashPoint.ISSUER_WRITTEN])
def test_the_locks_of_an_issuer_that_freezes_between_its_messages_are_released(
    point: CrashPoint,
    issuer: Issuer,
    store: Engine,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P7: PostgreSQL ends its transaction; thawed, it writes nothing, and its batch is decided when read again."""
    coupon = make_coupon()
    batch = records(reader, ids, coupon.id, range(1, 4))
    issuer.issue(batch[:1], positions)
    next_offsets = positions | {batch[0].partition: 1}

    with ThreadPoolExecutor(1) as pool, _frozen_at(point, monkeypatch) as (reached, thawed):
        issuing = pool.submit(issuer.issue, batch[1:], next_offsets)
        assert reached.wait(10)
        assert eventually(lambda: _lock(store, coupon), within_seconds=9)
        thawed.set()
        error = issuing.exception()

    assert error is not None
    assert classify(error).failure_class is FailureClass.SYSTEM
    assert query("SELECT count(*) FROM requests") == [(1,)]
    issuer.issue(batch[1:], next_offsets)
    assert query('SELECT user_id, sequence FROM requests ORDER BY "offset"') == [(1, 1), (2, 2), (3, 3)]


def test_the_locks_of_an_issuer_that_freezes_within_a_message_are_released(
    store: Engine, make_coupon: MakeCoupon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: the server has executed the first statements of a message and waits for the others."""
    monkeypatch.setattr(pipeline, "TRANSACTION_SECONDS", 1)
    coupon = make_coupon()
    lock = pipeline.PreparedStatement("lock", coupons.LOCK_COUNTS)
    connection = pipeline.Pipeline(store, [lock])

    with connection.transaction():
        driver = connection._require_driver()
        statements: list[pipeline.Call] = [(pipeline.BEGIN, {}), (lock, {"ids": [coupon.id]})]
        for statement, values in statements:
            driver.pgconn.send_query_prepared(statement.name, *statement.encode(values, driver))
        driver.pgconn.send_flush_request()
        driver.wait(generators.send(driver.pgconn))
        for _ in statements:
            driver.wait(generators.fetch_many(driver.pgconn))
        assert eventually(lambda: _lock(store, coupon), within_seconds=4)


@contextmanager
def _issuing_while_locked(
    store: Engine, query: Query, coupon: Coupon, issue: Callable[[], IssueResult]
) -> Iterator[Connection]:
    """Lock the coupon for the block; commit what it wrote when a batch waits for that lock, and finish the batch."""
    with ThreadPoolExecutor(1) as pool, store.begin() as other:
        coupons.lock(other, [coupon.id])
        yield other
        issuing = pool.submit(issue)
        eventually(lambda: query("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
        other.commit()
        issuing.result()


def test_a_plain_batch_is_decided_from_rows_read_under_the_lock(
    store: Engine,
    issuer: CountingIssuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
) -> None:
    """P1: it waits for another writer of the coupon, then decides from what that wrote, in the same transaction."""
    coupon = make_coupon(quantity=2)
    batch = records(reader, ids, coupon.id, range(1, 3))

    with _issuing_while_locked(store, query, coupon, partial(issuer.issue, batch, positions)) as other:
        insert_request(other, 99, coupon_id=coupon.id, user_id=99, sequence=1, log_id=2)

    assert query('SELECT user_id, sequence FROM requests ORDER BY "offset"') == [(1, 2), (2, None), (99, 1)]
    assert issuer.any_batches == 0


def test_a_plain_batch_of_a_fenced_issuer_writes_nothing(
    issuer: CountingIssuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
) -> None:
    """P7: another issuer has advanced the partition, and the records that this one has read ahead have no rows yet."""
    coupon = make_coupon()
    issuer.issue(records(reader, ids, coupon.id, range(1, 3)), positions)

    with pytest.raises(Fenced):
        issuer.issue(records(reader, ids, coupon.id, range(3, 5), first=5), positions)

    assert query("SELECT count(*) FROM requests") == [(2,)]
    assert issuer.any_batches == 0


def test_the_messages_of_a_plain_batch_do_not_grow_with_it(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    messages: list[int],
) -> None:
    """600 requests for 20 coupons cost as many statements as one. At the edge of sold out users are looked up as well.

    The first of those batches does so by a message more, the next one with the locks.
    """
    next_offsets = dict(positions)
    many = [make_coupon(quantity=45) for _ in range(20)]
    for asked, users in (
        ([make_coupon()], range(1, 2)),
        (many, range(1, 31)),
        (many, range(31, 61)),
        (many, range(61, 91)),
    ):
        batch: list[Record] = []
        for coupon in asked:
            partition = partition_of(coupon.id, PARTITIONS)
            first = next_offsets[partition] + sum(record.partition == partition for record in batch)
            batch += records(reader, ids, coupon.id, users, first=first)
        next_offsets |= issuer.issue(batch, next_offsets).next_offsets

    assert messages == [5, 4, 5, 4, 5, 1, 4, 6, 4]


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of statements in each message to the database."""
    sent: list[int] = []
    send = pipeline.Pipeline.send

    def counted(self: pipeline.Pipeline, *calls: pipeline.Call) -> None:
        sent.append(len(calls))
        send(self, *calls)

    monkeypatch.setattr(pipeline.Pipeline, "send", counted)
    return sent


def _redelivered(batch: list[Record], first: int) -> list[Record]:
    return [record._replace(offset=first + index) for index, record in enumerate(batch)]


@pytest.mark.parametrize("state", ["free seats", "full", "closed"])
def test_a_redelivery_of_an_issued_request_gets_no_second_row(
    state: str,
    issuer: CountingIssuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    coupon_service: CouponService,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
    messages: list[int],
) -> None:
    """P2: with free seats the database refuses the batch, and its users are looked up; otherwise they are at once."""
    coupon = make_coupon(quantity=2 if state == "full" else 9)
    batch = records(reader, ids, coupon.id, range(1, 3))
    issuer.issue(batch, positions)
    if state == "closed":
        coupon_service.change(coupon.id, {"override": Override.CLOSED})
    messages.clear()

    again = [*_redelivered(batch, 2), *records(reader, ids, coupon.id, range(3, 4), first=4)]
    issuer.issue(again, _next(query))

    code = {"free seats": None, "full": "sold_out", "closed": "closed"}[state]
    assert query('SELECT user_id, code FROM requests ORDER BY "offset"') == [(1, None), (2, None), (3, code)]
    assert messages == ([5, 4, 1, 6, 4] if state == "free seats" else [5, 1, 4])
    assert issuer.any_batches == 0


@pytest.mark.parametrize("ended", ["refused", "dead"])
def test_a_redelivery_of_an_ended_request_gets_no_row_though_seats_are_free(
    ended: str,
    store: Engine,
    issuer: CountingIssuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
) -> None:
    """P2: no constraint refuses it, so a coupon that has an ended request has its users looked up."""
    coupon = make_coupon(quantity=9)
    (record,) = records(reader, ids, coupon.id, range(1, 2))
    with store.begin() as tx:
        insert_request(
            tx,
            0,
            coupon_id=coupon.id,
            user_id=1,
            state=RequestState(ended),
            log_id=2,
            request_id=record.request_id,
        )

    issuer.issue([record, *records(reader, ids, coupon.id, range(2, 3), first=1)], positions)

    assert query("SELECT user_id, state FROM requests ORDER BY user_id") == [(1, ended), (2, "issued")]
    assert issuer.any_batches == 0


def test_ended_requests_are_read_under_the_lock(
    store: Engine,
    issuer: CountingIssuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
) -> None:
    """P2: a request that another writer ended while the batch waited for the lock is not issued by its redelivery."""
    coupon = make_coupon(quantity=9)
    (record,) = records(reader, ids, coupon.id, range(1, 2))

    with _issuing_while_locked(store, query, coupon, partial(issuer.issue, [record], positions)) as other:
        insert_request(
            other,
            0,
            coupon_id=coupon.id,
            user_id=1,
            state=RequestState.REFUSED,
            log_id=2,
            request_id=record.request_id,
        )

    assert query("SELECT state FROM requests") == [("refused",)]
    assert issuer.any_batches == 0


def test_a_coupon_with_standby_is_not_tried_again_at_once(
    issuer: CountingIssuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
    messages: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P5: the first plain batch is read in vain, those of the next second are not; another coupon's are plain.

    A batch of a coupon that does not exist is not plain either, and changes nothing of that.
    """
    now = 0.0
    monkeypatch.setattr(issue_plain, "time", SimpleNamespace(monotonic=lambda: now))
    waiting, other = make_coupon(quantity=1), make_coupon()
    issuer.issue(records(reader, ids, waiting.id, range(1, 3), faults={1: "22012 1"}), positions)

    def messages_of(coupon_id: int, user: int) -> list[int]:
        messages.clear()
        at = positions | _next(query)
        first = at[partition_of(coupon_id, PARTITIONS)]
        issuer.issue(records(reader, ids, coupon_id, range(user, user + 1), first=first), at)
        return list(messages)

    # the users of a full coupon are looked up, and the transaction is rolled back
    assert messages_of(waiting.id, 3) == [5, 1, 1]
    assert messages_of(waiting.id, 4) == []
    assert messages_of(other.id, 1) == [5, 4]
    assert messages_of(other.id + 1, 1) == [5, 1]
    assert messages_of(waiting.id, 5) == []
    now = 1.0
    assert messages_of(waiting.id, 6) == [5, 1, 1]
    assert query("SELECT state, count(*) FROM requests GROUP BY 1 ORDER BY 1") == [
        ("issued", 1),
        ("refused", 1),
        ("retrying", 1),
        ("standby", 5),
    ]


def test_plans_that_are_made_for_an_empty_table_read_a_large_one_by_its_indexes(store: Engine, admin: Engine) -> None:
    """A connection plans each statement once, which may be before the first row is written.

    These read the tables that grow; a log has as many checkpoints as partitions.
    """
    with admin.begin() as tx:
        tx.execute(text("ANALYZE requests, coupons"))  # without statistics PostgreSQL assumes ten pages
    planned = [
        pipeline.PreparedStatement("prior", requests.PRIOR),
        pipeline.PreparedStatement("ended", requests.WITH_ENDED),
        pipeline.PreparedStatement("counts", coupons.LOCK_COUNTS),
    ]
    executions = ("EXECUTE prior ('{}', '{}')", "EXECUTE ended ('{}')", "EXECUTE counts ('{}')")
    explain = [pipeline.PreparedStatement(one, text(f"EXPLAIN {one}")) for one in executions]
    connection = pipeline.Pipeline(store, [*planned, *explain])

    with connection.transaction():
        connection.send((pipeline.BEGIN, {}), *((one, {}) for one in explain))
        _, *plans = ["".join(line.decode() for (line,) in rows) for rows in connection.receive()]

    for plan, condition in zip(
        plans,
        (
            "Index Cond: ((coupon_id = asked.coupon) AND (user_id = asked.uid))",
            "Index Cond: (coupon_id = asked.id)",
            "Index Cond: (id = ANY",
        ),
        strict=True,
    ):
        assert condition in plan
        assert "Seq Scan" not in plan


def test_a_connection_cut_between_two_batches_is_replaced(
    issuer: Issuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
) -> None:
    """P7: the database restarts while the issuer has nothing to do, and the next batch does not notice."""
    coupon = make_coupon()
    batch = records(reader, ids, coupon.id, range(1, 4))
    next_offsets = issuer.issue(batch[:1], positions).next_offsets
    others = "FROM pg_stat_activity WHERE query = 'COMMIT' AND pid <> pg_backend_pid()"
    cut = f"SELECT pg_terminate_backend(pid, 5000) {others}"
    assert query(cut)

    issuer.issue(batch[1:], positions | next_offsets)

    assert query("SELECT count(*) FROM requests") == [(3,)]


def test_a_batch_that_the_database_refuses_is_decided_record_by_record(
    admin: Engine,
    issuer: CountingIssuer,
    positions: dict[int, int],
    make_coupon: MakeCoupon,
    reader: RecordReader,
    ids: RequestIds,
    query: Query,
) -> None:
    """P3: a row that a constraint rejects rolls the plain batch back; the others of it are issued all the same."""
    coupon = make_coupon()
    with admin.begin() as tx:
        tx.execute(text("ALTER TABLE requests ADD CONSTRAINT odd CHECK (state <> 'issued' OR user_id <> 2) NOT VALID"))
    try:
        issuer.issue(records(reader, ids, coupon.id, range(1, 4)), positions)
    finally:
        with admin.begin() as tx:
            tx.execute(text("ALTER TABLE requests DROP CONSTRAINT odd"))

    assert issuer.any_batches == 1
    assert query('SELECT state, sequence FROM requests ORDER BY "offset"') == [
        ("issued", 1),
        ("retrying", None),
        ("issued", 2),
    ]
    issuer.issue(records(reader, ids, coupon.id, range(4, 6), first=3), _next(query))
    assert issuer.any_batches == 1


def _next(query: Query) -> dict[int, int]:
    return {row.partition: row.next_offset for row in query("SELECT partition, next_offset FROM offsets")}
