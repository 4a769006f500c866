"""What tests of single rooms share: a fresh database, rows as they are, the log by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from redis import Redis
from sqlalchemy import Engine, Row, make_url, text

from service.config import Settings
from service.domain.request_id import RequestIds
from service.gate.upkeep import Upkeep
from service.store import engine, offsets
from service.stream.codec import Reader
from service.stream.topics import Topic
from service.usecases.issue import Issuer
from service.usecases.verify import Verifier
from service.usecases.warm import Warmer
from tests.builders import PARTITIONS
from tests.door import Door
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
def positions(store: Engine, log: int) -> dict[int, int]:
    """Every partition stands at its first offset."""
    beginnings = dict.fromkeys(range(PARTITIONS), 0)
    with store.begin() as tx:
        offsets.positions(tx, log, beginnings)
    return beginnings


@pytest.fixture
def fresh_database(settings: Settings, store: Engine) -> Iterator[Engine]:
    """An empty database of its own, without a schema."""
    admin = store.execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS fresh WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE fresh"))
    url = make_url(settings.database_url).set(database="fresh")
    built = engine.build(url.render_as_string(hide_password=False), "tests")
    yield built
    built.dispose()
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE fresh WITH (FORCE)"))


@pytest.fixture
def warmer(settings: Settings, store: Engine, log: int, reader: Reader, upkeep: Upkeep) -> Warmer:
    """Fills cold gates."""
    return Warmer(settings, store, log, reader, upkeep)


@pytest.fixture
def verifier(settings: Settings, store: Engine, log: int, ids: RequestIds, reader: Reader) -> Verifier:
    """Proves the promises."""
    return Verifier(settings, store, log, ids, reader)


@pytest.fixture
def door(settings: Settings, redis: Redis) -> Door:
    """An emptied gate."""
    redis.script_flush()
    return Door(settings.redis_url)


@pytest.fixture
def real_log(settings: Settings, store: Engine, log: int, ids: RequestIds, reader: Reader, issuer: Issuer) -> Log:
    """The topic itself, emptied; the database stands at its end."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    ends = [TopicPartition(Topic.ISSUE_COUPON, partition, -1) for partition in range(PARTITIONS)]
    beginnings = {at.partition: future.result(10).low_watermark for at, future in admin.delete_records(ends).items()}
    with store.begin() as tx:
        offsets.positions(tx, log, beginnings)
    return Log(settings, ids, reader, issuer, beginnings)
