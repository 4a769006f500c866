"""Celery's settings: what must fit together so that nothing vanishes and nothing runs twice at once."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from billiard import pool
from kombu.transport import confluentkafka

from service.store.engine import STATEMENT_SECONDS
from tests.unit import facts
from tests.unit.conftest import Facts
from workers import celery
from workers.queues import BeatEntry, Queue, Task
from workers.resources import LEASE_SECONDS, WEBHOOK_TIMEOUT_SECONDS

ROOT = Path(__file__).parents[2]
OVER_KAFKA = {"CELERY_BROKER_URL": "confluentkafka://127.0.0.1:9"}


@pytest.fixture(scope="module")
def conf() -> dict[str, Any]:
    """Celery's settings over Redis."""
    return _read("celeryconfig.py", facts.ENVIRONMENT)


@pytest.fixture(scope="module")
def over_kafka() -> dict[str, Any]:
    """Celery's settings over Kafka."""
    return _read("celeryconfig.py", facts.ENVIRONMENT | OVER_KAFKA)


def _read(file: str, environment: dict[str, str]) -> dict[str, Any]:
    """The file's names, read as Celery reads them, but kept from whoever imports it later."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return runpy.run_path(str(ROOT / file))


def test_every_task_is_registered_and_no_other(told: Facts) -> None:
    """Section 7: the vocabulary of tasks is closed."""
    assert told["celery"]["tasks"] == sorted(Task)


def test_every_task_goes_to_its_own_queue(told: Facts) -> None:
    """Step 6: the part before the dot is the queue."""
    assert told["celery"]["queues"] == {task.value: task.value.partition(".")[0] for task in Task}


def test_routes_name_only_the_queue(conf: dict[str, Any]) -> None:
    """Step 6: a route through a named exchange needs bindings kept in Redis, and without them a message vanishes."""
    assert conf["task_routes"] == {task.value: {"queue": task.queue.value} for task in Task}


def test_every_queue_is_declared_and_a_misspelt_one_is_an_error(conf: dict[str, Any]) -> None:
    """Section 7: the vocabulary of queues is closed."""
    assert [queue.name for queue in conf["task_queues"]] == [queue.value for queue in Queue]
    assert conf["task_create_missing_queues"] is False
    assert conf["task_default_queue"] in list(Queue)


def test_a_task_ends_before_its_lease_and_the_lease_before_the_message_comes_again(conf: dict[str, Any]) -> None:
    """Step 6: a claim's lease is shorter than the visibility timeout, and no task outlives its claim."""
    visible = conf["broker_transport_options"]["visibility_timeout"]
    limits = [WEBHOOK_TIMEOUT_SECONDS, STATEMENT_SECONDS, conf["task_time_limit"], LEASE_SECONDS, visible]

    assert limits == sorted(set(limits))


def test_a_killed_workers_task_is_not_lost(conf: dict[str, Any]) -> None:
    """P7: a task is acknowledged after its work, and one whose worker died comes back."""
    assert conf["task_acks_late"] is True
    assert conf["task_retry_on_worker_lost"] is True
    assert conf["worker_prefetch_multiplier"] == 1


def test_only_json_is_taken(conf: dict[str, Any]) -> None:
    """A6: a pickle in the queue is refused, never loaded."""
    assert conf["accept_content"] == ["json"]
    assert conf["task_serializer"] == "json"


def test_beat_starts_what_is_registered_and_forgets_what_is_late(conf: dict[str, Any]) -> None:
    """P6: the sweep runs on, and starts missed during an outage do not pile up."""
    assert {name: entry["task"] for name, entry in conf["beat_schedule"].items()} == {
        beat.value: beat.task.value for beat in BeatEntry
    }
    assert all(entry["schedule"] > 0 for entry in conf["beat_schedule"].values())
    assert all(entry["options"]["expires"] >= entry["schedule"] for entry in conf["beat_schedule"].values())


def test_a_lost_childs_task_comes_back_before_its_message_would(conf: dict[str, Any]) -> None:
    """P7: Celery's own delay, three minutes, would outlast the visibility timeout many times over."""
    assert conf["task_annotations"]["*"]["default_retry_delay"] < conf["broker_transport_options"]["visibility_timeout"]


def test_over_kafka_every_queue_is_a_topic_of_its_own_name(over_kafka: dict[str, Any]) -> None:
    """A topic called retry would be anybody's; every task goes to a queue that is declared."""
    names = [queue.name for queue in over_kafka["task_queues"]]

    assert names == [f"coupon.celery.{queue}" for queue in Queue]
    assert {route["queue"] for route in over_kafka["task_routes"].values()} <= set(names)
    assert over_kafka["task_default_queue"] in names


def test_each_transport_is_told_only_what_it_knows(conf: dict[str, Any], over_kafka: dict[str, Any]) -> None:
    """An option that a transport ignores would be believed to do something."""
    redis, kafka = (found["broker_transport_options"] for found in (conf, over_kafka))

    assert not redis.keys() & kafka.keys()
    assert "broker_transport" not in conf
    assert {option for option in kafka if option not in (confluentkafka.__doc__ or "")} == {"polling_interval"}


def test_a_sender_over_kafka_gives_up_soon(over_kafka: dict[str, Any]) -> None:
    """By default librdkafka tries for five minutes, in which the teller would tell nobody else."""
    assert over_kafka["broker_transport_options"]["kafka_producer_config"]["message.timeout.ms"] <= 2_000


def test_no_events_are_sent_where_nobody_could_hear_them(conf: dict[str, Any], over_kafka: dict[str, Any]) -> None:
    """There is no fanout over Kafka, on which Flower lives."""
    for setting in ("worker_send_task_events", "task_send_sent_event"):
        assert (conf[setting], over_kafka[setting]) == (True, False)


def test_flower_does_not_start_where_it_would_see_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty page would be believed; it says why instead."""
    assert _read("flowerconfig.py", facts.ENVIRONMENT)["address"] == "127.0.0.1"
    with pytest.raises(SystemExit):
        _read("flowerconfig.py", facts.ENVIRONMENT | OVER_KAFKA)
    assert "CELERY_BROKER_URL: Flower sees nothing over Kafka" in capsys.readouterr().err


def test_a_child_waits_for_its_parent_to_count_for_three_seconds_at_most() -> None:
    """Billiard's own thirty would be those of a worker that is told to stop."""
    looks, pause = pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT, pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_INTERVAL

    assert celery.app
    assert looks * pause <= 3
    assert "GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT" in pool.Worker._ensure_messages_consumed.__code__.co_names
