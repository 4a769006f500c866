"""What a scrape reads from PostgreSQL, Redis and Kafka equals what is there, and no part that hangs delays it."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from service import metrics
from service.config import Settings
from service.domain.coupon import Coupon
from service.gate.client import clock_seconds
from service.gate.gate_admin import GateAdmin
from service.gate.keys import WEBHOOK_FAILURE_KEY, WORKERS_KEY
from service.gate.task_counts import TaskCount, TaskCounts
from service.gate.webhook_failure import WebhookFailure
from service.gate.worker_board import WorkerBoard
from service.metrics import Exporter, Metric, Values
from service.scrape import open_system_values, render
from service.store import verifications
from service.stream.partitioner import partition_of
from service.usecases.recover import Recoverer
from service.verification.verify import Verifier
from service.webhooks.sender import WebhookOutcome
from tests.builders import PARTITIONS
from tests.integration.conftest import Query
from tests.log import Log
from tests.waiting import eventually
from workers.heartbeats import HeartbeatRecorder

AWAY = "127.0.0.1:9"
_QUEUES = ("maintenance", "notify")


def _read(settings: Settings) -> Values:
    """Return the values once Kafka has answered: on a busy machine a new client connects in more than a second."""
    with open_system_values(settings, "tests metrics", _QUEUES) as values:
        return eventually(lambda: found if "kafka" not in _away(found := values.read()) else None)


def _by_label(values: Values, metric: Metric) -> dict[str, float]:
    return {labels[0]: value for labels, value in values[metric].items()}


@pytest.mark.usefixtures("redis")
def test_the_values_are_those_of_the_database_and_the_log(
    settings: Settings,
    real_log: Log,
    make_coupon: Callable[..., Coupon],
    recoverer: Recoverer,
    log_id: int,
    query: Query,
) -> None:
    """A sale with issued, held, standby, dead and undecided requests."""
    coupon = make_coupon(quantity=4)
    for user in range(1, 9):
        real_log.append_request(coupon.id, user, fault="22012 9" if user <= 2 else None)
    first_held, _ = real_log.issue()
    for attempts_made in (1, 2):
        recoverer.retry(log_id, [first_held], attempts_made)
    for user in range(9, 12):
        real_log.append_request(coupon.id, user)

    values = _read(settings)

    states = {row.state: row.rows for row in query("SELECT state, count(*) AS rows FROM requests GROUP BY state")}
    assert states == {"issued": 3, "retrying": 1, "standby": 3, "dead": 1}
    assert values[metrics.ISSUED_REQUESTS] == {(): states["issued"]}
    assert values[metrics.HELD_REQUESTS] == {(): states["retrying"]}
    assert values[metrics.STANDBY_REQUESTS] == {(): states["standby"]}
    assert _by_label(values, metrics.RETRYING_REQUESTS) == {"1": 1, "2": 0}
    assert _by_label(values, metrics.NEW_DEAD_LETTERS) == {"exhausted": states["dead"]}
    assert values[metrics.RECENT_DEAD_LETTERS] == {(): states["dead"]}
    entries = {row.kind: row.rows for row in query("SELECT kind, count(*) AS rows FROM outbox GROUP BY kind")}
    assert entries.keys() == {"notify", "gate"}
    assert _by_label(values, metrics.WORK_ROWS) == {"retry": 1, "dead_letter": 1, **entries}
    assert all(0 < age < 60 for age in _by_label(values, metrics.WORK_AGE_SECONDS).values())
    partition = str(partition_of(coupon.id, PARTITIONS))
    assert _by_label(values, metrics.UNDECIDED_RECORDS) == {**{str(at): 0 for at in range(PARTITIONS)}, partition: 3}
    assert 0 <= _by_label(values, metrics.OLDEST_UNDECIDED_AGE)[partition] < 60
    assert values[metrics.PART_AVAILABLE] == {(part,): 1 for part in ("postgresql", "redis", "kafka", "broker")}


@pytest.mark.usefixtures("redis")
def test_a_held_request_has_waited_since_its_last_attempt(
    settings: Settings, real_log: Log, make_coupon: Callable[..., Coupon], admin: Engine
) -> None:
    """In a backlog its record is old when it fails first; and the sweep puts off what is due if nobody takes it."""
    coupon = make_coupon(quantity=4)
    for user in (1, 2):
        real_log.append_request(coupon.id, user, fault="22012 9")
    real_log.issue()
    with admin.begin() as tx:
        tx.execute(text("UPDATE retries SET appended_at = appended_at - interval '10 minutes'"))
    fresh = _by_label(_read(settings), metrics.WORK_AGE_SECONDS)["retry"]
    with admin.begin() as tx:
        tx.execute(text("UPDATE retries SET next_attempt_at = now() + interval '5 seconds'"))
        tx.execute(
            text(
                "UPDATE failed_attempts SET failed_at = now() - interval '90 seconds' WHERE \"offset\" IN"
                ' (SELECT min("offset") FROM failed_attempts)'
            )
        )
    stuck = _by_label(_read(settings), metrics.WORK_AGE_SECONDS)["retry"]

    assert fresh < 60
    assert 90 <= stuck < 150


@pytest.mark.usefixtures("store", "full_redis")
def test_a_broker_that_refuses_writes_is_not_available(settings: Settings) -> None:
    """It answers how long its queues are, and takes no message."""
    with open_system_values(settings, "tests metrics", _QUEUES) as values:
        fault = eventually(lambda: values.read_broker().fault)
        reading = values.observe()

    assert fault.startswith("Celery's broker is unavailable: it refuses writes: ")
    assert "maxmemory" in fault
    assert _by_label(reading.values, metrics.PART_AVAILABLE)["broker"] == 0
    assert _by_label(reading.values, metrics.PART_AVAILABLE)["redis"] == 1


@pytest.mark.usefixtures("real_log", "redis")
def test_an_empty_system_has_zeros(settings: Settings) -> None:
    """A rate needs the sample before the first count, and a panel of nothing looks like one that is broken."""
    values = _read(settings)

    assert values[metrics.ISSUED_REQUESTS] == {(): 0}
    assert _by_label(values, metrics.WORK_ROWS) == dict.fromkeys(("retry", "dead_letter", "notify", "gate"), 0)
    assert _by_label(values, metrics.WORK_AGE_SECONDS) == dict.fromkeys(("retry", "dead_letter", "notify", "gate"), 0)
    assert _by_label(values, metrics.WEBHOOK_ATTEMPTS) == dict.fromkeys(WebhookOutcome, 0)
    assert _by_label(values, metrics.RETRY_ATTEMPTS) == {"2": 0, "3": 0}
    assert metrics.VERIFICATION_OK not in values or values[metrics.VERIFICATION_OK] == {}
    assert metrics.SWEEP_AGE_SECONDS not in values
    assert values[metrics.OLDEST_UNDECIDED_AGE] == {}, "no watermark was advanced yet"


@pytest.mark.usefixtures("store")
def test_the_values_of_celery_are_those_of_redis(settings: Settings, redis: Redis, gate_admin: GateAdmin) -> None:
    """Counts of the workers, the last sweep, the lengths of the queues."""
    counts = TaskCounts(redis)
    counts.add(TaskCount.WEBHOOK_ATTEMPTS, WebhookOutcome.ACCEPTED)
    counts.add(TaskCount.WEBHOOK_ATTEMPTS, WebhookOutcome.REJECTED)
    counts.add(TaskCount.WEBHOOK_ATTEMPTS, WebhookOutcome.REJECTED)
    counts.add(TaskCount.RETRY_ATTEMPTS, "2", 200)
    redis.hset("gate:task_counts", "a count of another version:x", 1)
    redis.hset("gate:task_counts", "retry_attempts:3", "not a number")
    gate_admin.record_sweep()
    with Redis.from_url(settings.celery_broker_url) as broker:
        broker.delete(*_QUEUES)
        broker.rpush("notify", "one", "two")
        values = _read(settings)
        broker.delete(*_QUEUES)

    assert _by_label(values, metrics.WEBHOOK_ATTEMPTS) == {"accepted": 1, "rejected": 2, "unreachable": 0}
    assert _by_label(values, metrics.RETRY_ATTEMPTS) == {"2": 200, "3": 0}
    assert 0 <= values[metrics.SWEEP_AGE_SECONDS][()] < 5
    assert _by_label(values, metrics.CELERY_QUEUE_MESSAGES) == {"maintenance": 0, "notify": 2}


def _message(age_seconds: float) -> str:
    return json.dumps({"body": "", "headers": {}, "properties": {"timestamp": time.time() - age_seconds}})


@pytest.mark.usefixtures("store", "redis")
@pytest.mark.parametrize(
    ("waiting", "age"),
    [
        (["{}", 90], {"maintenance": 0, "notify": pytest.approx(90, abs=30)}),
        ([-3_600], dict.fromkeys(_QUEUES, 0)),
        ([90, "{}"], {"maintenance": 0}),
        (["[" * 100_000], {"maintenance": 0}),
        ([b"\xff"], {"maintenance": 0}),
        (['{"properties": {"timestamp": "noon"}}'], {"maintenance": 0}),
        (['{"properties": {"timestamp": -1}}'], {"maintenance": 0}),
    ],
    ids=["old", "a clock ahead", "without a time", "no JSON", "no text", "no number", "before 1970"],
)
def test_the_age_of_a_queue_is_that_of_its_oldest_message(
    settings: Settings, waiting: list[str | bytes | int], age: dict[str, float]
) -> None:
    """New messages are put on the left. An oldest one that does not say when it was sent leaves the age unknown.

    A number stands for a message that was sent so many seconds ago.
    """
    messages = [_message(each) if isinstance(each, int) else each for each in waiting]
    with Redis.from_url(settings.celery_broker_url) as broker:
        broker.delete(*_QUEUES)
        broker.rpush("notify", *messages)
        try:
            with open_system_values(settings, "tests metrics", _QUEUES) as values:
                found = eventually(
                    lambda: read if metrics.CELERY_QUEUE_AGE_SECONDS in (read := values.read()) else None
                )
        finally:
            broker.delete(*_QUEUES)

    assert _by_label(found, metrics.CELERY_QUEUE_MESSAGES)["notify"] == len(waiting)
    assert _by_label(found, metrics.CELERY_QUEUE_AGE_SECONDS) == age


@pytest.mark.usefixtures("store")
def test_workers_are_known_by_their_heartbeats(settings: Settings, redis: Redis) -> None:
    """One that was killed grows old and is forgotten after a minute, one that ends is forgotten at once."""
    board = WorkerBoard(redis)
    for worker in ("celery@runs", "celery@ends", "celery@frozen", "celery@killed"):
        board.record(worker)
    now = clock_seconds(redis.time())
    redis.zadd(WORKERS_KEY, {"celery@frozen": now - 20, "celery@killed": now - 90})
    before = _by_label(_read(settings), metrics.CELERY_WORKER_AGE_SECONDS)
    board.record("celery@runs")
    board.withdraw("celery@ends")
    after = _by_label(_read(settings), metrics.CELERY_WORKER_AGE_SECONDS)

    assert before.keys() == {"celery@runs", "celery@ends", "celery@frozen"}
    assert 20 <= before["celery@frozen"] < 50
    assert after.keys() == {"celery@runs", "celery@frozen"}
    assert after["celery@runs"] < 15
    assert redis.zcard(WORKERS_KEY) == 2, "what is forgotten is deleted"


def test_a_heartbeat_that_redis_does_not_take_is_lost() -> None:
    """The worker goes on: it is held up once in ten seconds at most."""
    with _silent_server() as silent, Redis.from_url(f"redis://{silent}/0", socket_timeout=0.5) as hanging:
        recorder = HeartbeatRecorder(WorkerBoard(hanging))
        began = time.monotonic()
        for _ in range(20):
            recorder.record("celery@here")
        assert time.monotonic() - began < 3
        recorder.withdraw("celery@here")


@pytest.mark.usefixtures("store")
def test_the_last_failure_of_a_webhook_is_that_of_redis(settings: Settings, redis: Redis) -> None:
    """The latest of all workers, until it is too old to say anything about now."""
    with open_system_values(settings, "tests") as reader:
        eventually(lambda: reader.observe().issuers is not None)
        assert reader.observe().webhook_failure is None
        WebhookFailure(redis).record("it answered 500")
        WebhookFailure(redis).record("it answered 503")
        eventually(lambda: reader.observe().webhook_failure == "it answered 503")
    assert 600 < redis.ttl(WEBHOOK_FAILURE_KEY) <= 660


def test_a_count_is_lost_without_redis_and_the_work_goes_on(settings: Settings) -> None:
    """A notice that was delivered must not fail because it could not be counted."""
    away = Redis.from_url(f"redis://{AWAY}/0")
    TaskCounts(away).add(TaskCount.WEBHOOK_ATTEMPTS, WebhookOutcome.ACCEPTED)
    WebhookFailure(away).record("it answered 503")

    without = settings.model_copy(update={"redis_url": f"redis://{AWAY}/0"})
    assert _by_label(_read(without), metrics.PART_AVAILABLE)["redis"] == 0


@pytest.mark.usefixtures("redis")
def test_the_last_proof_of_all_coupons_is_shown(
    settings: Settings, store: Engine, real_log: Log, make_coupon: Callable[..., Coupon], verifier: Verifier
) -> None:
    """A proof of one coupon says nothing about the others."""
    coupon = make_coupon(quantity=1)
    real_log.append_request(coupon.id, 1)
    real_log.issue()
    assert all(check.ok for check in verifier.verify())
    kept = _read(settings)
    with store.begin() as tx:
        verifications.record(tx, None, ok=False)
    verifier.verify(coupon_id=coupon.id)
    broken = _read(settings)

    assert kept[metrics.VERIFICATION_OK] == {(): 1}
    assert 0 <= kept[metrics.VERIFICATION_AGE_SECONDS][()] < 30
    assert broken[metrics.VERIFICATION_OK] == {(): 0}


@contextmanager
def _silent_server() -> Iterator[str]:
    """Yield the address of a server that takes connections and never answers, like a frozen one."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _away(values: Values) -> list[str]:
    return [part for part, is_on in _by_label(values, metrics.PART_AVAILABLE).items() if not is_on]


@pytest.mark.usefixtures("store", "redis")
@pytest.mark.parametrize("part", ["postgresql", "redis", "kafka", "broker"])
@pytest.mark.parametrize("is_frozen", [False, True], ids=["away", "frozen"])
def test_a_part_that_does_not_answer_is_left_out_in_time(settings: Settings, part: str, *, is_frozen: bool) -> None:
    """Each scrape ends within two seconds, also the ones after the first, and has all the rest."""
    with _silent_server() as silent:
        address = silent if is_frozen else AWAY
        changed = {
            "postgresql": {"database_url": f"postgresql://coupons@{address}/coupons"},
            "redis": {"redis_url": f"redis://{address}/0"},
            "kafka": {"kafka_bootstrap_servers": address},
            "broker": {"celery_broker_url": f"redis://{address}/1"},
        }[part]
        with open_system_values(settings.model_copy(update=changed), "tests metrics", _QUEUES) as values:
            for _ in range(2):
                began = time.monotonic()
                values.read()
                assert time.monotonic() - began < 2
            found = eventually(lambda: read if len(_away(read := values.read())) == 1 else None)
            text = render(found, Exporter.ISSUER).decode()

    available = _by_label(found, metrics.PART_AVAILABLE)
    assert _away(found) == [part]
    assert _by_label(found, metrics.PART_READ_SECONDS).keys() == {name for name, is_on in available.items() if is_on}
    assert (metrics.ISSUED_REQUESTS in found) == (part != "postgresql")
    for of_redis in (metrics.WEBHOOK_ATTEMPTS, metrics.CELERY_WORKER_AGE_SECONDS):
        assert (of_redis in found) == (part != "redis")
    for of_broker in (metrics.CELERY_QUEUE_MESSAGES, metrics.CELERY_QUEUE_AGE_SECONDS):
        assert (of_broker in found) == (part != "broker")
    assert (metrics.UNDECIDED_RECORDS in found) == (part not in {"postgresql", "kafka"})
    assert f'coupons_part_available{{part="{part}"}} 0.0' in text


@pytest.mark.usefixtures("redis", "store")
def test_scrapes_that_come_together_share_one_query(settings: Settings) -> None:
    """Two Prometheus servers, and whoever reloads the page, do not multiply the load."""
    with open_system_values(settings, "tests metrics") as values:
        reads = [values._database.ask() for _ in range(50)]

    assert len({id(read) for read in reads}) == 1
