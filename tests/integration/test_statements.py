"""The number of statements of a batch does not depend on what the batch contains."""

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
from service.gate.gate_admin import GateAdmin
from service.store import engine, outbox, requests, retries, write_probe
from service.store.outbox import OffsetRange, OutboxKind
from service.store.write_probe import ProbedWrite
from service.stream.codec import RecordReader
from service.stream.partitioner import partition_of
from service.usecases.issue import Issuer
from service.usecases.replay import DeadLetterService
from tests.builders import PARTITIONS, key_register, records
from tests.integration.conftest import RetryHeld, StartSale


class SentStatements:
    """Records what the driver sends, including COPY and each row of an executemany."""

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
def statements_of(
    separate_store: Engine, log_id: int, positions: dict[int, int]
) -> Callable[[list[Record]], list[str]]:
    """Return the statements that deciding a batch sends on a warm connection."""
    statements = SentStatements(separate_store)
    issuer = Issuer(separate_store, log_id, key_register(), notices=True)
    issuer.issue([], positions)
    next_offsets = dict(positions)

    def statements_of(batch: list[Record]) -> list[str]:
        statements.sent.clear()
        next_offsets.update(issuer.issue_any(batch, next_offsets).next_offsets)
        return list(statements.sent)

    return statements_of


def test_many_failures_cost_as_many_statements_as_one(
    statements_of: Callable[[list[Record]], list[str]],
    make_coupon: Callable[..., Coupon],
    reader: RecordReader,
    ids: RequestIds,
) -> None:
    """One probe finds all failing requests, and one statement stores them."""
    coupon = make_coupon(quantity=2000)

    single = statements_of(records(reader, ids, coupon.id, range(1, 91), faults={45: "22012 1"}))
    every_second = dict.fromkeys(range(91, 181, 2), "22012 1")
    many_failures = statements_of(records(reader, ids, coupon.id, range(91, 181), faults=every_second, first=90))

    assert len(many_failures) == len(single) < 30


def test_every_batch_costs_the_same_few_statements(
    statements_of: Callable[[list[Record]], list[str]],
    make_coupon: Callable[..., Coupon],
    reader: RecordReader,
    ids: RequestIds,
) -> None:
    """1,500 requests cost as many statements as one, 20 coupons as many as one: few, with one INSERT."""
    coupons = [make_coupon(quantity=2000) for _ in range(40 * PARTITIONS)]
    same_partition = [
        coupon for coupon in coupons if partition_of(coupon.id, PARTITIONS) == partition_of(coupons[0].id, PARTITIONS)
    ][:20]
    assert len(same_partition) == 20

    single = statements_of(records(reader, ids, same_partition[0].id, range(1, 2)))
    large = statements_of(records(reader, ids, same_partition[0].id, range(2, 1502), first=1))
    many_coupons = statements_of(
        [
            record
            for number, coupon in enumerate(same_partition)
            for record in records(reader, ids, coupon.id, range(3001, 3026), first=1501 + 25 * number)
        ]
    )

    assert len(single) == len(large) == len(many_coupons)
    assert len(single) <= 10
    assert sum("INSERT INTO requests" in statement for statement in many_coupons) == 1


def test_replay_many_does_not_send_a_statement_for_each_dead_letter(
    start_sale: StartSale,
    retry_held: RetryHeld,
    separate_store: Engine,
    reader: RecordReader,
    gate_admin: GateAdmin,
) -> None:
    """The coupon is locked for a few statements, however many dead letters are replayed."""
    start_sale(quantity=400, users=range(1, 61), faults=dict.fromkeys(range(1, 61), "22012 3"))
    for attempts_made in (1, 2):
        retry_held(attempts_made)
    statements = SentStatements(separate_store)
    dead_letters = DeadLetterService(separate_store, reader, gate_admin, notices=True, acted_by="tests")

    assert len(dead_letters.replay_many(DeadLetterFilter(), 100, dry_run=True)) == 60

    assert 0 < len(statements.sent) < 25, statements.sent


@pytest.fixture
def separate_store(admin: Engine, store: Engine) -> Iterator[Engine]:
    """Replaces the service's role by the superuser, who may change statistics and load auto_explain.

    Autovacuum is kept off the tables: an ANALYZE beside the first transaction of a sale records pages without rows,
    and until the next one PostgreSQL scans up to some 800 pages for 100 look-ups.
    """
    del store  # its tables are emptied
    database = engine.build(admin.url.render_as_string(hide_password=False), "tests separate")
    _set_on_filled_tables(admin, "SET (autovacuum_enabled = off)")
    yield database
    _set_on_filled_tables(admin, "RESET (autovacuum_enabled)")
    database.dispose()


def _set_on_filled_tables(admin: Engine, setting: str) -> None:
    with admin.begin() as tx:
        for table in ("requests", "retries", "outbox"):
            tx.exec_driver_sql(f"ALTER TABLE {table} {setting}")


_CLEAR_STATISTICS = text(
    "SELECT pg_clear_attribute_stats('public', relname, attname, false) FROM pg_attribute"
    " JOIN pg_class ON attrelid = pg_class.oid WHERE relname IN ('requests', 'retries', 'outbox') AND attnum > 0"
)


def test_a_query_plan_for_few_rows_is_not_kept_for_a_sale(
    start_sale: StartSale,
    separate_store: Engine,
    log_id: int,
    positions: dict[int, int],
    reader: RecordReader,
    ids: RequestIds,
) -> None:
    """A plan kept from when there were few rows would read every row for each request."""
    coupon_id = start_sale(quantity=5_000, users=range(1, 21), faults={}).coupon.id
    keys = [(coupon_id, user) for user in range(10_001, 11_001)]
    with separate_store.begin() as tx:
        tx.execute(text("ANALYZE requests"))
    for _ in range(12):  # the driver prepares after five calls, and PostgreSQL keeps a plan after five more
        with separate_store.begin() as tx:
            requests.prior_requests(tx, keys)

    checkpoints = positions | {partition_of(coupon_id, PARTITIONS): 20}
    Issuer(separate_store, log_id, key_register(), notices=False).issue(
        records(reader, ids, coupon_id, range(21, 2_021), first=20), checkpoints
    )

    with separate_store.begin() as tx:
        before = _rows_read(tx)
        requests.prior_requests(tx, keys)
        assert _rows_read(tx) == before


def test_a_retry_reads_its_own_rows_only(start_sale: StartSale, separate_store: Engine, log_id: int) -> None:
    """The coupon is locked meanwhile, and there are no statistics in a sale's first minute."""
    sale = start_sale(quantity=6_000, users=range(1, 6_001), faults=dict.fromkeys(range(100, 199), "22012 9"))
    with separate_store.begin() as tx:
        tx.execute(_CLEAR_STATISTICS)
        before = _rows_read(tx)
        held = retries.lock_for_attempt(tx, log_id, sale.held, 1)
        requests.update(
            tx,
            log_id,
            [Outcome(entry.request, RequestState.RETRYING) for entry in held],
            engine.database_now(tx),
            attempts_added=1,
        )
        retries.postpone(tx, log_id, [(entry.request.log_position, classify(ValueError()), 1.0) for entry in held])
        retries.remove(tx, log_id, sale.held)
        assert len(held) == 99
        assert _rows_read(tx) - before < 500


def test_promoting_reads_the_promoted_rows_only(start_sale: StartSale, separate_store: Engine) -> None:
    """The size of standby does not matter, even without statistics."""
    coupon_id = start_sale(quantity=1, users=range(1, 3_001), faults={1: "22012 9"}).coupon.id
    with separate_store.begin() as tx:
        tx.execute(_CLEAR_STATISTICS)
        before = _rows_read(tx)
        _, first = retries.first_standby(tx, coupon_id, 50)
        assert [entry.request.user_id for entry in first] == list(range(2, 52))
        assert _rows_read(tx) - before < 150


def test_a_trigger_plan_for_one_row_is_not_kept_for_many(
    start_sale: StartSale, separate_store: Engine, log_id: int
) -> None:
    """P1: the trigger looks up each changed row; a comparison of all pairs would hold the coupon's lock for long."""
    coupon_id = start_sale(quantity=1, users=range(1, 502), faults={1: "22012 9"}).coupon.id
    with separate_store.begin() as tx:
        _, waiting = retries.first_standby(tx, coupon_id, 500)
        refused = [Outcome(entry.request, RequestState.REFUSED, ReasonCode.SOLD_OUT) for entry in waiting]
        decided_at = engine.database_now(tx)
        for outcome in refused[:12]:
            requests.update(tx, log_id, [outcome], decided_at, attempts_added=0)
        with _plans_of(tx) as plans:
            requests.update(tx, log_id, refused[12:], decided_at, attempts_added=0)
        assert any("delta" in plan for plan in plans)
        assert sum(map(_compared_in_vain, map(json.loads, plans))) == 0


_RAISE = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '22012'; END $$"


def test_the_write_probe_keeps_a_plan_that_scans_no_table(
    start_sale: StartSale,
    issuer: Issuer,
    separate_store: Engine,
    log_id: int,
    positions: dict[int, int],
    reader: RecordReader,
    ids: RequestIds,
) -> None:
    """The plan is made while the table is one page, and kept for hundreds of statements."""
    sale = start_sale(quantity=5_000, users=range(1, 3), faults={1: "22012 9"})
    checkpoints = positions | {partition_of(sale.coupon.id, PARTITIONS): 2}
    with separate_store.begin() as tx:
        tx.execute(text("ANALYZE requests"))
    with separate_store.connect() as connection:

        def failing(held: list[LogPosition], sequence: int) -> dict[str, Failure]:
            (entry,) = retries.lock_for_attempt(connection, log_id, held, 1)
            issued = Outcome(entry.request, RequestState.ISSUED, None, sequence)
            probed = ProbedWrite(log_id, issued, is_new=False, fault=None)
            probed_writes = [probed] * 12 + [probed._replace(fault=_RAISE)]
            return write_probe.find_failing(connection, probed_writes, engine.database_now(connection))

        (failure,) = failing(sale.held, 2).values()
        assert failure.error_type == "psycopg.errors.DivisionByZero"
        connection.commit()
        batch = records(reader, ids, sale.coupon.id, range(3, 2_003), faults={2_002: "22012 9"}, first=2)
        held = issuer.issue(batch, checkpoints).held

        before = _rows_read(connection)
        assert len(failing(held, 2_001)) == 1
        assert 13 <= _rows_read(connection) - before < 500


@pytest.mark.parametrize(("analysed", "max_rows_read"), [(True, 2_000), (False, 11_000)])
def test_claiming_reads_the_claimed_entries_only(
    separate_store: Engine, log_id: int, analysed: bool, max_rows_read: int
) -> None:
    """A worker that was away finds many entries; before any statistics a claim of new ones reads them once."""
    with separate_store.begin() as tx:
        outbox.insert(
            tx,
            log_id,
            [OutboxKind.NOTIFY],
            [OffsetRange(0, offset, offset) for offset in range(10_000)],
            engine.database_now(tx),
        )
    with separate_store.begin() as tx:
        tx.execute(text("ANALYZE outbox") if analysed else _CLEAR_STATISTICS)
    with separate_store.begin() as tx:
        first = outbox.claim_batch(tx, OutboxKind.NOTIFY, 10, offsets=50)
        assert first
        outbox.postpone_batch(tx, first, -1, "away")
    with separate_store.begin() as tx:
        before = _rows_read(tx)
        repeated, new = (outbox.claim_batch(tx, OutboxKind.NOTIFY, 10, offsets=50) for _ in range(2))
        assert repeated
        assert new
        assert repeated == (first.delivery_id, [entry._replace(attempts=2) for entry in first.entries])
        assert [entry.range.first for entry in new.entries] == list(range(50, 100))
        assert _rows_read(tx) - before < max_rows_read


@contextmanager
def _plans_of(tx: Connection) -> Iterator[list[str]]:
    """Collect the plans that auto_explain reports for the statements within, including those of triggers, as JSON."""
    plans: list[str] = []
    driver = engine.driver_connection(tx)

    def on_notice(notice: psycopg.errors.Diagnostic) -> None:
        _, separator, plan = str(notice.message_primary).partition("plan:\n")
        plans.extend([plan] if separator else [])

    tx.exec_driver_sql("LOAD 'auto_explain'")
    for name, value in _AUTO_EXPLAIN.items():
        tx.exec_driver_sql(f"SET LOCAL {name} = {value}")
    driver.add_notice_handler(on_notice)
    try:
        yield plans
    finally:
        driver.remove_notice_handler(on_notice)


_AUTO_EXPLAIN = {
    "auto_explain.log_min_duration": 0,
    "auto_explain.log_analyze": "on",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_format": "json",
    "client_min_messages": "log",
}


def _compared_in_vain(plan: Any) -> int:
    """Return the number of row pairs that were rejected by join conditions of the plan."""
    if isinstance(plan, list):
        return sum(map(_compared_in_vain, plan))
    if not isinstance(plan, dict):
        return 0
    removed: int = plan.get("Rows Removed by Join Filter", 0)
    return removed + sum(map(_compared_in_vain, plan.values()))


def _rows_read(tx: Connection) -> int:
    """Return how many rows of the tables that a sale fills this session has read, by scan or by index."""
    query = (
        "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
        " WHERE relname IN ('requests', 'retries', 'outbox')"
    )
    return int(tx.execute(text(query)).scalar_one())
