"""Work in batches: a task does what fits its time and sends itself again for the rest."""

import time

import pytest

from workers import batching
from workers.celery import app
from workers.queues import Task


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tasks that were sent."""
    names: list[str] = []
    monkeypatch.setattr(app, "send_task", lambda name, *_, **__: names.append(name))
    return names


def test_batches_run_while_they_find_something(sent: list[str]) -> None:
    """A task that has found nothing more to do sends nothing, and returns how much it did."""
    found = [50, 50, 7, 0]

    done = batching.run_batches(Task.FORWARD_DEAD_LETTERS, lambda: found.pop(0))

    assert (found, sent, done) == ([], [], 107)


@pytest.mark.usefixtures("sent")
def test_a_batch_that_computed_sleeps_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The issuer has priority; a batch that found nothing is followed by no sleep."""
    computed = iter([0.0, 0.5, 0.5, 0.75, 0.75, 0.8])
    pauses: list[float] = []
    monkeypatch.setattr(time, "thread_time", lambda: next(computed))
    monkeypatch.setattr(time, "sleep", pauses.append)
    found = [50, 7, 0]

    batching.run_batches(Task.NOTIFY, lambda: found.pop(0), idle_ratio=3)

    assert pauses == [1.5, 0.75]


def test_a_sleep_that_is_too_long_for_the_task_is_left_out(sent: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of many large records is followed by another task, not by a sleep until the process is killed."""
    computed = iter([0.0, 2.0])
    monkeypatch.setattr(time, "thread_time", lambda: next(computed))
    monkeypatch.delattr(time, "sleep")

    batching.run_batches(Task.NOTIFY, lambda: 500, idle_ratio=3)

    assert sent == [Task.NOTIFY.value]


@pytest.mark.parametrize(("batch_seconds", "run"), [(0.0, 3), (1.0, 2), (3.0, 1)])
def test_no_batch_starts_too_late_to_end_in_time(
    sent: list[str], monkeypatch: pytest.MonkeyPatch, batch_seconds: float, run: int
) -> None:
    """A second per batch: the rest is sent on before the time limit would kill the process."""
    clock = iter(range(100))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(time, "thread_time", lambda: 0.0)
    batches_run = iter(range(1, 100))

    batching.run_batches(Task.NOTIFY, lambda: next(batches_run), batch_timeout_seconds=batch_seconds)

    assert (next(batches_run) - 1, sent) == (run, [Task.NOTIFY.value])
