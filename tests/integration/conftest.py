"""What integration tests share: an emptied database, its rows, and the topic under the test's control."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis
from sqlalchemy import Engine, Row, event, make_url, text

from service.config import Settings
from service.domain.coupon import Coupon
from service.domain.request import LogPosition
from service.domain.request_id import RequestIds
from service.gate.gate_admin import GateAdmin
from service.resources import Resources
from service.store import checkpoints, engine, logs
from service.stream.codec import RecordReader
from service.stream.topics import Topic
from service.usecases.issue import Issuer
from service.usecases.key_register import KeyRegister
from service.usecases.log_watch import LogWatch
from service.usecases.recover import Recoverer
from tests.builders import PARTITIONS, records
from tests.gate_client import GateClient
from tests.log import Log

Query = Callable[..., list[Row[Any]]]


@pytest.fixture
def query(store: Engine) -> Query:
    """Return the rows of a query: `query("SELECT …", id=7)`."""

    def rows(query: str, **values: object) -> list[Row[Any]]:
        with store.begin() as tx:
            return list(tx.execute(text(query), values))

    return rows


@pytest.fixture
def statements(store: Engine) -> list[str]:
    """The statements that are executed on the test's engine from now on, whichever thread executes them."""
    executed: list[str] = []

    def record(_: object, __: object, statement: str, *___: object) -> None:
        executed.append(statement)

    event.listen(store, "before_cursor_execute", record)
    return executed


@pytest.fixture
def separate_store(settings: Settings) -> Iterator[Engine]:
    """An engine with connections of its own to the emptied database, for a test that breaks or counts them."""
    database = engine.build(settings.database_url, "tests separate")
    yield database
    database.dispose()


@pytest.fixture
def limited_url(settings: Settings, admin: Engine) -> Iterator[str]:
    """The database's address with role `limited`, which has no right on any table."""
    with admin.begin() as tx:
        tx.execute(text("CREATE ROLE limited LOGIN PASSWORD 'limited'"))
    url = make_url(settings.database_url).set(username="limited", password="limited")
    yield url.render_as_string(hide_password=False)
    with admin.begin() as tx:
        tx.execute(text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'limited'"))
        tx.execute(text("DROP OWNED BY limited"))
        tx.execute(text("DROP ROLE limited"))


@pytest.fixture
def limited_redis_url(settings: Settings, redis: Redis) -> Iterator[str]:
    """The gate's address with user `limited`, which the test creates; every password is accepted."""
    yield f"redis://limited:any@{settings.redis_url.rpartition('@')[2]}"
    redis.acl_deluser("limited")


@pytest.fixture
def positions(store: Engine, log_id: int) -> dict[int, int]:
    """The checkpoints: every partition begins at offset 0."""
    beginnings = dict.fromkeys(range(PARTITIONS), 0)
    with store.begin() as tx:
        checkpoints.ensure_checkpoints(tx, log_id, beginnings)
    return beginnings


@pytest.fixture
def fresh_database(admin: Engine) -> Iterator[Engine]:
    """A second, empty database without a schema, for the superuser."""
    autocommit = admin.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))  # CREATE and DROP DATABASE wait for a checkpoint
        connection.execute(text("DROP DATABASE IF EXISTS fresh WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE fresh"))
    url = admin.url.set(database="fresh")
    database = engine.build(url.render_as_string(hide_password=False), "tests")
    yield database
    database.dispose()
    with autocommit.connect() as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("DROP DATABASE fresh WITH (FORCE)"))


class StartedSale(NamedTuple):
    """A coupon whose first requests were decided, and the LogPositions of those that are held."""

    coupon: Coupon
    held: list[LogPosition]


StartSale = Callable[..., StartedSale]
RetryHeld = Callable[[int], None]


@pytest.fixture
def start_sale(
    issuer: Issuer, positions: dict[int, int], make_coupon: Callable[..., Coupon], reader: RecordReader, ids: RequestIds
) -> StartSale:
    """Create a coupon and decide its first requests; some fail: `start_sale(3, range(1, 6), {2: "22012 1"})`."""

    def start(quantity: int, users: range, faults: dict[int, str]) -> StartedSale:
        coupon = make_coupon(quantity=quantity)
        undecided, next_offsets = records(reader, ids, coupon.id, users, faults=faults), positions
        sale = StartedSale(coupon, [])
        while undecided:  # a batch with many failures ends early
            issued = issuer.issue(undecided, next_offsets)
            undecided, next_offsets = undecided[issued.record_count :], issued.next_offsets
            sale.held.extend(issued.held)
        return sale

    return start


@pytest.fixture
def retry_held(recoverer: Recoverer, log_id: int, query: Query) -> RetryHeld:
    """Retry all held requests that have had so many attempts."""

    def make(attempts_made: int) -> None:
        rows = query('SELECT partition, "offset" FROM retries WHERE attempts = :made', made=attempts_made)
        recoverer.retry(log_id, [LogPosition(row.partition, row.offset) for row in rows], attempts_made)

    return make


@pytest.fixture
def exhaust_retries(retry_held: RetryHeld) -> Callable[[], None]:
    """Make every attempt that the retry policy allows, for all held requests."""

    def make() -> None:
        for attempts_made in (1, 2):
            retry_held(attempts_made)

    return make


@pytest.fixture
def resources(
    settings: Settings,
    store: Engine,
    log_id: int,
    reader: RecordReader,
    gate_admin: GateAdmin,
    key_register: KeyRegister,
) -> Resources:
    """What every process has, connected to the test's servers."""
    with store.begin() as tx:
        watch = LogWatch(settings, store, logs.get_open(tx))
    assert watch.log.id == log_id
    return Resources(settings, store, watch, reader, gate_admin, key_register)


@pytest.fixture
def gate_client(settings: Settings, redis: Redis) -> GateClient:
    """A client of an emptied gate."""
    redis.script_flush()
    return GateClient(settings.redis_url)


@pytest.fixture
def full_redis(redis: Redis) -> Iterator[Redis]:
    """The gate's Valkey, whose memory is full."""
    redis.config_set("maxmemory", 1)
    yield redis
    redis.config_set("maxmemory", 0)


@pytest.fixture
def evicting_redis(redis: Redis) -> Iterator[Redis]:
    """The gate's Valkey, which deletes keys when its memory is full."""
    redis.config_set("maxmemory-policy", "allkeys-lru")
    yield redis
    redis.config_set("maxmemory-policy", "noeviction")


@pytest.fixture
def real_log(
    settings: Settings, store: Engine, log_id: int, ids: RequestIds, reader: RecordReader, issuer: Issuer
) -> Log:
    """The topic itself, emptied; the checkpoints are at its end."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    ends = [TopicPartition(Topic.ISSUE_COUPON, partition, -1) for partition in range(PARTITIONS)]
    beginnings = {end.partition: future.result(10).low_watermark for end, future in admin.delete_records(ends).items()}
    with store.begin() as tx:
        checkpoints.ensure_checkpoints(tx, log_id, beginnings)
    return Log(settings, ids, reader, issuer, beginnings)
