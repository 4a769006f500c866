"""What a poll costs the database: a number of statements that nothing it holds can raise."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Engine, event, text

from service.domain.coupon import Coupon
from service.domain.dead_letter import DeadLetterFilter
from service.domain.decide import Outcome
from service.domain.failures import Failure, classify
from service.domain.record import Record
from service.domain.request import LogPosition, ReasonCode, RequestState
from service.domain.request_id import RequestIds
from service.store import engine, outbox, requests, retries, write_probe
from service.store.outbox import OffsetRange, OutboxKind
from service.store.write_probe import ProbedWrite
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.usecases.issue import Issuer
from service.usecases.replay import DeadLetterService
from tests.builders import PARTITIONS, records
from tests.integration.conftest import Attempt, Sell


class Statements:
    """Counts what the driver sends, COPY and each row of an executemany included."""

    def __init__(self, engine: Engine) -> None:
        self.sent: list[str] = []
        event.listen(engine, "connect", self._count)

    def _count(self, connection: "psycopg.Connection[Any]", _: object) -> None:
        sent = self.sent

        class Counting(psycopg.Cursor[Any]):
            def execute(self, query: Any, *more: Any, **named: Any) -> Any:
                sent.append(str(query))
                return super().execute(query, *more, **named)

            def executemany(self, query: Any, params_seq: Any, **more: Any) -> None:
                rows = list(params_seq)
                sent.extend([str(query)] * len(rows))
                super().executemany(query, rows, **more)

            def copy(self, statement: Any, *more: Any, **named: Any) -> Any:
                sent.append(str(statement))
                return super().copy(statement, *more, **named)

        connection.cursor_factory = Counting


@pytest.fixture
def cost(spoilt_store: Engine, log_id: int, positions: dict[int, int]) -> Callable[[list[Record]], list[str]]:
    """The statements that deciding a poll sends, once the connection is warm."""
    statements = Statements(spoilt_store)
    issuer = Issuer(spoilt_store, log_id, notices=True)
    issuer.issue([], positions)
    at = dict(positions)

    def statements_of(poll: list[Record]) -> list[str]:
        statements.sent.clear()
        at.update(issuer.issue(poll, at).next_offsets)
        return list(statements.sent)

    return statements_of


def test_many_that_fail_by_themselves_cost_what_one_does(
    cost: Callable[[list[Record]], list[str]], make_coupon: Callable[..., Coupon], reader: RecordReader, ids: RequestIds
) -> None:
    """Step 5: all of them are told at once, and stored at once."""
    coupon = make_coupon(quantity=2000)

    one = cost(records(reader, ids, coupon.id, range(1, 91), faults={45: "22012 1"}))
    every_other = dict.fromkeys(range(91, 181, 2), "22012 1")
    half = cost(records(reader, ids, coupon.id, range(91, 181), faults=every_other, first=90))

    assert len(half) == len(one) < 30


def test_a_poll_costs_the_same_whatever_it_holds(
    cost: Callable[[list[Record]], list[str]],
    make_coupon: Callable[..., Coupon],
    reader: RecordReader,
    ids: RequestIds,
) -> None:
    """Step 4: as many statements for 1,500 requests as for one, for 20 coupons as for one; few, one INSERT."""
    all_ = [make_coupon(quantity=2000) for _ in range(40 * PARTITIONS)]
    same = [one for one in all_ if partition_of(one.id, PARTITIONS) == partition_of(all_[0].id, PARTITIONS)][:20]
    assert len(same) == 20

    one = cost(records(reader, ids, same[0].id, range(1, 2)))
    many = cost(records(reader, ids, same[0].id, range(2, 1502), first=1))
    wide = cost(
        [
            record
            for number, coupon in enumerate(same)
            for record in records(reader, ids, coupon.id, range(3001, 3026), first=1501 + 25 * number)
        ]
    )

    assert len(one) == len(many) == len(wide)
    assert len(one) <= 10
    assert sum("INSERT INTO requests" in statement for statement in wide) == 1


def test_a_replay_in_bulk_costs_no_statement_a_letter(
    sell: Sell, attempt: Attempt, spoilt_store: Engine, reader: RecordReader
) -> None:
    """Step 7: the coupon is locked for a few statements, however many come back."""
    sell(quantity=400, users=range(1, 61), faults=dict.fromkeys(range(1, 61), "22012 3"))
    for attempts_made in (1, 2):
        attempt(attempts_made)
    statements = Statements(spoilt_store)
    desk = DeadLetterService(spoilt_store, reader, notices=True, via="api")

    assert len(desk.replay_many(DeadLetterFilter(), 100, dry_run=True)) == 60

    assert 0 < len(statements.sent) < 25, statements.sent


_AS_ON_THE_FIRST_DAY = text(
    "SELECT pg_clear_attribute_stats('public', relname, attname, false) FROM pg_attribute"
    " JOIN pg_class ON attrelid = pg_class.oid WHERE relname IN ('requests', 'retries', 'outbox') AND attnum > 0"
)


def test_a_sale_is_not_planned_by_the_quiet_before_it(
    sell: Sell,
    spoilt_store: Engine,
    log_id: int,
    positions: dict[int, int],
    reader: RecordReader,
    ids: RequestIds,
) -> None:
    """Step 4: a plan kept from when there were few rows would read every row for each request."""
    coupon_id = sell(quantity=5_000, users=range(1, 21), faults={}).coupon.id
    asked = [(coupon_id, user) for user in range(10_001, 11_001)]
    with spoilt_store.begin() as tx:
        tx.execute(text("ANALYZE requests"))
    for _ in range(12):  # the driver prepares after five, and PostgreSQL keeps a plan after five of those
        with spoilt_store.begin() as tx:
            requests.prior_requests(tx, asked)

    at = positions | {partition_of(coupon_id, PARTITIONS): 20}
    Issuer(spoilt_store, log_id, notices=False).issue(records(reader, ids, coupon_id, range(21, 2_021), first=20), at)

    with spoilt_store.begin() as tx:
        before = _rows_read(tx)
        requests.prior_requests(tx, asked)
        assert _rows_read(tx) == before


def test_an_attempt_reads_its_own_rows_and_not_the_log(sell: Sell, spoilt_store: Engine, log_id: int) -> None:
    """Step 6: the coupon is locked meanwhile, and no statistics tell of a sale's first minute."""
    sold = sell(quantity=6_000, users=range(1, 6_001), faults=dict.fromkeys(range(100, 199), "22012 9"))
    with spoilt_store.begin() as tx:
        tx.execute(_AS_ON_THE_FIRST_DAY)
        before = _rows_read(tx)
        taken = retries.lock_for_attempt(tx, log_id, sold.held, 1)
        requests.update(
            tx,
            log_id,
            [Outcome(one.request, RequestState.RETRYING) for one in taken],
            engine.database_now(tx),
            attempts_added=1,
        )
        retries.postpone(tx, log_id, [(one.request.log_position, classify(ValueError()), 1.0) for one in taken])
        retries.remove(tx, log_id, sold.held)
        assert len(taken) == 99
        assert _rows_read(tx) - before < 500


def test_promoting_reads_those_promoted_and_not_all_who_wait(sell: Sell, spoilt_store: Engine) -> None:
    """Step 6: however many are on standby, and no statistics tell of them."""
    coupon_id = sell(quantity=1, users=range(1, 3_001), faults={1: "22012 9"}).coupon.id
    with spoilt_store.begin() as tx:
        tx.execute(_AS_ON_THE_FIRST_DAY)
        before = _rows_read(tx)
        _, first = retries.first_standby(tx, coupon_id, 50)
        assert [one.request.user_id for one in first] == list(range(2, 52))
        assert _rows_read(tx) - before < 150


def test_the_counting_of_many_is_not_planned_by_that_of_one(sell: Sell, spoilt_store: Engine, log_id: int) -> None:
    """P1: the trigger looks each changed row up; compared with all others they would hold the coupon's lock."""
    coupon_id = sell(quantity=1, users=range(1, 502), faults={1: "22012 9"}).coupon.id
    with spoilt_store.begin() as tx:
        _, waiting = retries.first_standby(tx, coupon_id, 500)
        refused = [Outcome(one.request, RequestState.REFUSED, ReasonCode.SOLD_OUT) for one in waiting]
        at = engine.database_now(tx)
        for one in refused[:12]:
            requests.update(tx, log_id, [one], at, attempts_added=0)
        with _plans_of(tx) as plans:
            requests.update(tx, log_id, refused[12:], at, attempts_added=0)
        assert any("delta" in plan for plan in plans)
        assert sum(map(_compared, map(json.loads, plans))) == 0


_FAULT = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '22012'; END $$"


def test_a_trial_keeps_a_plan_that_reads_no_table(
    sell: Sell,
    issuer: Issuer,
    spoilt_store: Engine,
    log_id: int,
    positions: dict[int, int],
    reader: RecordReader,
    ids: RequestIds,
) -> None:
    """Step 6: made while the table was a page, and kept for its hundreds of statements."""
    sold = sell(quantity=5_000, users=range(1, 3), faults={1: "22012 9"})
    at = positions | {partition_of(sold.coupon.id, PARTITIONS): 2}
    with spoilt_store.begin() as tx:
        tx.execute(text("ANALYZE requests"))
    with spoilt_store.connect() as connection:

        def failing(held: list[LogPosition], sequence: int) -> dict[str, Failure]:
            (one,) = retries.lock_for_attempt(connection, log_id, held, 1)
            issued = Outcome(one.request, RequestState.ISSUED, None, sequence)
            trial = ProbedWrite(log_id, issued, is_new=False, fault=None)
            tries = [trial] * 12 + [trial._replace(fault=_FAULT)]
            return write_probe.find_failing(connection, tries, engine.database_now(connection))

        (failure,) = failing(sold.held, 2).values()
        assert failure.error_type == "psycopg.errors.DivisionByZero"
        connection.commit()
        sale = records(reader, ids, sold.coupon.id, range(3, 2_003), faults={2_002: "22012 9"}, first=2)
        held = issuer.issue(sale, at).held

        before = _rows_read(connection)
        assert len(failing(held, 2_001)) == 1
        assert 13 <= _rows_read(connection) - before < 500


@pytest.mark.parametrize(("analysed", "most"), [(True, 2_000), (False, 11_000)])
def test_claiming_reads_what_it_takes_and_not_all_that_waits(
    spoilt_store: Engine, log_id: int, analysed: bool, most: int
) -> None:
    """Step 8: a worker that was away finds many rows; before any statistics a claim of new ones reads them once."""
    with spoilt_store.begin() as tx:
        outbox.insert(
            tx, log_id, [OutboxKind.NOTIFY], [OffsetRange(0, at, at) for at in range(10_000)], engine.database_now(tx)
        )
    with spoilt_store.begin() as tx:
        tx.execute(text("ANALYZE outbox") if analysed else _AS_ON_THE_FIRST_DAY)
    with spoilt_store.begin() as tx:
        first = outbox.claim_batch(tx, OutboxKind.NOTIFY, 10, offsets=50)
        assert first
        outbox.postpone_batch(tx, first, -1)
    with spoilt_store.begin() as tx:
        before = _rows_read(tx)
        again, fresh = (outbox.claim_batch(tx, OutboxKind.NOTIFY, 10, offsets=50) for _ in range(2))
        assert again
        assert fresh
        assert again == (first.delivery_id, [one._replace(attempts=2) for one in first.entries])
        assert [one.range.first for one in fresh.entries] == list(range(50, 100))
        assert _rows_read(tx) - before < most


@contextmanager
def _plans_of(tx: Connection) -> Iterator[list[str]]:
    """What auto_explain tells of the statements within, those of triggers included, as JSON."""
    plans: list[str] = []
    driver = engine.driver_connection(tx)

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        _, told, plan = str(notice.message_primary).partition("plan:\n")
        plans.extend([plan] if told else [])

    tx.exec_driver_sql("LOAD 'auto_explain'")
    for name, value in _TELLING.items():
        tx.exec_driver_sql(f"SET LOCAL {name} = {value}")
    driver.add_notice_handler(hear)
    try:
        yield plans
    finally:
        driver.remove_notice_handler(hear)


_TELLING = {
    "auto_explain.log_min_duration": 0,
    "auto_explain.log_analyze": "on",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "client_min_messages": "log",
}


def _compared(plan: Any) -> int:
    """Pairs of rows that a join of the plan looked at in vain."""
    if isinstance(plan, list):
        return sum(map(_compared, plan))
    if not isinstance(plan, dict):
        return 0
    removed: int = plan.get("Rows Removed by Join Filter", 0)
    return removed + sum(map(_compared, plan.values()))


def _rows_read(tx: Connection) -> int:
    """Rows of the tables that a sale fills which this session has read, whichever way."""
    query = (
        "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
        " WHERE relname IN ('requests', 'retries', 'outbox')"
    )
    return int(tx.execute(text(query)).scalar_one())
