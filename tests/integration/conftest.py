"""What tests of single rooms share: a fresh database, rows as they are, the log by hand."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis
from sqlalchemy import Engine, Row, make_url, text

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.resources import Resources
from service.store import checkpoints, engine
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.usecases.gate_fill import GateFiller
from service.usecases.issue import Issuer
from service.usecases.recover import Recoverer
from tests.builders import PARTITIONS, records
from tests.gate_client import GateClient
from tests.log import Log

Ask = Callable[..., list[Row[Any]]]


@pytest.fixture
def ask(store: Engine) -> Ask:
    """Rows of a query: `ask("SELECT …", id=7)`."""

    def rows(query: str, **values: object) -> list[Row[Any]]:
        with store.begin() as tx:
            return list(tx.execute(text(query), values))

    return rows


@pytest.fixture
def spoilt_store(settings: Settings) -> Iterator[Engine]:
    """Connections of its own to the emptied database, to be spoilt by a test."""
    built = engine.build(settings.database_url, "tests spoilt")
    yield built
    built.dispose()


@pytest.fixture
def positions(store: Engine, log_id: int) -> dict[int, int]:
    """Every partition stands at its first offset."""
    beginnings = dict.fromkeys(range(PARTITIONS), 0)
    with store.begin() as tx:
        checkpoints.ensure_checkpoints(tx, log_id, beginnings)
    return beginnings


@pytest.fixture
def fresh_database(settings: Settings, store: Engine) -> Iterator[Engine]:
    """An empty database of its own, without a schema."""
    admin = store.execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))  # to make and drop one waits for a checkpoint
        connection.execute(text("DROP DATABASE IF EXISTS fresh WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE fresh"))
    url = make_url(settings.database_url).set(database="fresh")
    built = engine.build(url.render_as_string(hide_password=False), "tests")
    yield built
    built.dispose()
    with admin.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("DROP DATABASE fresh WITH (FORCE)"))


class Sold(NamedTuple):
    """A coupon after its first requests, and the places of those that are held."""

    coupon: Coupon
    held: list[LogPosition]


Sell = Callable[..., Sold]
Attempt = Callable[[int], None]


@pytest.fixture
def sell(
    issuer: Issuer, positions: dict[int, int], make_coupon: Callable[..., Coupon], reader: RecordReader, ids: RequestIds
) -> Sell:
    """A coupon's first requests, with some that fail as asked for: `sell(3, range(1, 6), {2: "22012 1"})`."""

    def issue(quantity: int, users: range, faults: dict[int, str]) -> Sold:
        coupon = make_coupon(quantity=quantity)
        line, at, sold = records(reader, ids, coupon.id, users, faults=faults), positions, Sold(coupon, [])
        while line:  # a poll ends early where many fail
            issued = issuer.issue(line, at)
            line, at = line[issued.record_count :], issued.next_offsets
            sold.held.extend(issued.held)
        return sold

    return issue


@pytest.fixture
def attempt(recoverer: Recoverer, log_id: int, ask: Ask) -> Attempt:
    """One more attempt for all that have had so many."""

    def make(attempts_made: int) -> None:
        rows = ask('SELECT partition, "offset" FROM retries WHERE attempts = :made', made=attempts_made)
        recoverer.retry(log_id, [LogPosition(row.partition, row.offset) for row in rows], attempts_made)

    return make


@pytest.fixture
def exhaust(attempt: Attempt) -> Callable[[], None]:
    """Makes every attempt that the policy allows for all who are held."""

    def make() -> None:
        for attempts_made in (1, 2):
            attempt(attempts_made)

    return make


@pytest.fixture
def common(settings: Settings, store: Engine, log_id: int, reader: RecordReader, gate_admin: GateAdmin) -> Resources:
    """What every process has, with the parts of the tests."""
    return Resources(settings, store, log_id, reader, gate_admin)


@pytest.fixture
def warmer(settings: Settings, store: Engine, log_id: int, reader: RecordReader, gate_admin: GateAdmin) -> GateFiller:
    """Fills cold gates."""
    return GateFiller(settings, store, log_id, reader, gate_admin)


@pytest.fixture
def gate_client(settings: Settings, redis: Redis) -> GateClient:
    """An emptied gate."""
    redis.script_flush()
    return GateClient(settings.redis_url)


@pytest.fixture
def real_log(
    settings: Settings, store: Engine, log_id: int, ids: RequestIds, reader: RecordReader, issuer: Issuer
) -> Log:
    """The topic itself, emptied; the database stands at its end."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    ends = [TopicPartition(Topic.ISSUE_COUPON, partition, -1) for partition in range(PARTITIONS)]
    beginnings = {at.partition: future.result(10).low_watermark for at, future in admin.delete_records(ends).items()}
    with store.begin() as tx:
        checkpoints.ensure_checkpoints(tx, log_id, beginnings)
    return Log(settings, ids, reader, issuer, beginnings)
