"""What an issuer publishes about itself in Redis, who reads it, and what remains of an issuer that ended."""

from collections.abc import Iterator

import pytest
from redis import Redis

from service import metrics
from service.config import Settings
from service.domain.system_observation import FRESH_HEALTH_SECONDS
from service.gate.celery_broker import QueueState
from service.gate.gate_admin import GateAdmin
from service.gate.issuer_health import IssuerHealth, IssuerHealthBoard
from service.gate.keys import ISSUER_HEALTH_KEY
from service.metrics import Values
from service.scrape import open_system_values
from service.usecases.system_values import BrokerState
from tests.waiting import eventually
from workers.issuer.health import Health
from workers.issuer.health_publisher import HealthPublisher

_QUEUES = {"maintenance": QueueState(4, 3.5), "notify": QueueState(0, 0.0), "retry": QueueState(1, None)}
_HEALTH = IssuerHealth(0.1, {"partition 3": "paused"}, 2.5, 10, _QUEUES, None)


@pytest.fixture
def board(redis: Redis) -> IssuerHealthBoard:
    """The health of no issuer."""
    return IssuerHealthBoard(redis)


@pytest.fixture
def published(settings: Settings, board: IssuerHealthBoard) -> Iterator[Health]:
    """The health of an issuer that publishes it."""
    health = Health()
    health.set_ready("issuer")
    publisher = HealthPublisher(settings, health, lambda: BrokerState(_QUEUES, None))
    publisher.start()
    eventually(board.read)
    yield health
    publisher.close()
    assert board.read() == []


def test_the_last_health_of_each_issuer_is_read(board: IssuerHealthBoard) -> None:
    """With its age by the clock of Redis."""
    board.publish("a", IssuerHealth(9.0, {}, 0.0, 0, None, "away"))
    board.publish("a", _HEALTH)
    board.publish("b", _HEALTH)
    board.withdraw("b")

    (entry,) = board.read()

    assert entry.health == _HEALTH
    assert 0 <= entry.age_seconds < 5


def test_what_another_version_wrote_is_left_out(board: IssuerHealthBoard, redis: Redis) -> None:
    """It must not hide the health of the others, and is removed when an issuer starts."""
    board.publish("ours", _HEALTH)
    for entry in (b"", b"{}", b'{"at_seconds": "x"}', b"\xff"):
        redis.hset(ISSUER_HEALTH_KEY, f"other {entry!r}", entry)
    redis.hset(ISSUER_HEALTH_KEY, b"\xff", b"")

    assert [entry.health for entry in board.read()] == [_HEALTH]

    board.withdraw_forgotten()

    assert set(redis.hkeys(ISSUER_HEALTH_KEY)) <= {b"ours", b"\xff"}


def test_an_issuer_publishes_what_it_reports(board: IssuerHealthBoard, published: Health) -> None:
    """Its reasons, and the queues that only it can read. At its end it withdraws them."""
    published.set_unready("partition 1", "paused")

    def is_published() -> bool:
        return board.read()[0].health.reasons == {"partition 1": "paused"}

    eventually(is_published)
    assert board.read()[0].health.queues == _QUEUES


def test_an_issuer_publishes_its_alerts(board: IssuerHealthBoard, published: Health) -> None:
    """Which key it lacks only it can say. An issuer of a version before this one publishes none."""
    published.set_alert("key_missing", "a key is missing")

    eventually(lambda: board.read()[0].health.alerts == {"key_missing": "a key is missing"})


def test_nothing_is_published_while_redis_refuses_writes(
    board: IssuerHealthBoard, published: Health, redis: Redis
) -> None:
    """The last health grows old although the issuer is well: from silence nothing follows then."""
    redis.config_set("maxmemory", 1)
    try:
        published.set_unready("partition 1", "paused")
        eventually(lambda: board.read()[0].age_seconds > FRESH_HEALTH_SECONDS)
        assert board.read()[0].health.reasons == {}
    finally:
        redis.config_set("maxmemory", 0)

    eventually(lambda: board.read()[0].health.reasons == {"partition 1": "paused"})


@pytest.mark.usefixtures("store")
def test_a_process_that_may_not_read_the_broker_shows_what_an_issuer_read(
    settings: Settings, board: IssuerHealthBoard
) -> None:
    """Neither a broker that is away nor one that is well is invented while no issuer publishes."""
    silent = _read(settings)
    board.publish("a", _HEALTH)
    well = _read(settings)
    board.publish("a", IssuerHealth(0.1, {}, 0.0, 0, None, "connection refused"))
    away = _read(settings)

    assert ("broker",) not in silent[metrics.PART_AVAILABLE]
    assert metrics.CELERY_QUEUE_MESSAGES not in silent
    assert well[metrics.PART_AVAILABLE]["broker",] == 1
    assert well[metrics.CELERY_QUEUE_MESSAGES] == {("maintenance",): 4, ("notify",): 0, ("retry",): 1}
    assert well[metrics.CELERY_QUEUE_AGE_SECONDS] == {("maintenance",): 3.5, ("notify",): 0}
    assert away[metrics.PART_AVAILABLE]["broker",] == 0


@pytest.mark.usefixtures("board")
def test_a_key_of_another_type_is_deleted(redis: Redis, gate_admin: GateAdmin) -> None:
    """Otherwise no issuer could publish any more."""
    redis.set(ISSUER_HEALTH_KEY, "not a hash")

    gate_admin.delete_wrong_types()

    assert not redis.exists(ISSUER_HEALTH_KEY)


def _read(settings: Settings) -> Values:
    with open_system_values(settings, "tests metrics") as values:
        return values.read()
