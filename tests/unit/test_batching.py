"""Work in steps: a task takes what fits and sends the rest on as the same task."""

import time

import pytest

from workers import batching
from workers.celery import app
from workers.queues import Task


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tasks that were sent."""
    names: list[str] = []
    monkeypatch.setattr(app, "send_task", names.append)
    return names


def test_steps_are_taken_while_they_find_something(sent: list[str]) -> None:
    """A task that has found nothing more to do sends nothing."""
    found = [50, 50, 7, 0]

    batching.run_batches(Task.FORWARD_DEAD_LETTERS, lambda: found.pop(0))

    assert (found, sent) == ([], [])


@pytest.mark.usefixtures("sent")
def test_a_step_that_computed_rests_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits gives way to those who issue; who found nothing has nothing to rest from."""
    computed = iter([0.0, 0.5, 0.5, 0.75, 0.75, 0.8])
    pauses: list[float] = []
    monkeypatch.setattr(time, "thread_time", lambda: next(computed))
    monkeypatch.setattr(time, "sleep", pauses.append)
    found = [50, 7, 0]

    batching.run_batches(Task.NOTIFY, lambda: found.pop(0), idle_ratio=3)

    assert pauses == [1.5, 0.75]


def test_a_rest_that_is_too_long_for_the_task_is_not_taken(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of many large records is followed by another task, not by a sleep until the process is killed."""
    computed = iter([0.0, 2.0])
    monkeypatch.setattr(time, "thread_time", lambda: next(computed))
    monkeypatch.delattr(time, "sleep")

    batching.run_batches(Task.NOTIFY, lambda: 500, idle_ratio=3)

    assert sent == [Task.NOTIFY.value]


@pytest.mark.parametrize(("step_seconds", "taken"), [(0.0, 4), (1.0, 3), (3.0, 1)])
def test_no_step_begins_too_late_to_end_in_time(
    sent: list[str], monkeypatch: pytest.MonkeyPatch, step_seconds: float, taken: int
) -> None:
    """A step of a second each: the rest is sent on, before the time limit would kill the process."""
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    steps_taken = iter(range(1, 100))

    batching.run_batches(Task.NOTIFY, lambda: next(steps_taken), batch_timeout_seconds=step_seconds)

    assert (next(steps_taken) - 1, sent) == (taken, [Task.NOTIFY.value])
