"""Celery's settings: what must fit together so that nothing vanishes and nothing runs twice at once."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from service.store.engine import STATEMENT_SECONDS
from tests.unit import facts
from tests.unit.conftest import Facts
from workers.names import Beat, Queue, Task
from workers.rooms import LEASE_SECONDS, WEBHOOK_SECONDS


@pytest.fixture(scope="module")
def conf() -> dict[str, Any]:
    """The file's names, read as Celery reads them, but kept from whoever imports it later."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in facts.ENVIRONMENT.items():
            patch.setenv(name, value)
        return runpy.run_path(str(Path(__file__).parents[2] / "celeryconfig.py"))


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
    limits = [WEBHOOK_SECONDS, STATEMENT_SECONDS, conf["task_time_limit"], LEASE_SECONDS, visible]

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
        beat.value: beat.task.value for beat in Beat
    }
    assert all(entry["schedule"] > 0 for entry in conf["beat_schedule"].values())
    assert all(entry["options"]["expires"] >= entry["schedule"] for entry in conf["beat_schedule"].values())
