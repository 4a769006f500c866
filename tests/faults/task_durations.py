"""Measure how long a Celery task runs, from Celery's own events."""

import threading
from collections import defaultdict
from typing import Any, Self

from celery import Celery

_END_EVENTS = ("task-succeeded", "task-retried", "task-failed")


class TaskDurations:
    """Collect the durations of all runs of one task inside a `with` block."""

    def __init__(self, broker_url: str, name: str) -> None:
        #: duration of each run of the task
        self.seconds: list[float] = []
        self._name = name
        self._app = Celery(broker=broker_url, set_as_current=False)
        self._start_times: defaultdict[str, float] = defaultdict(float)
        self._task_ids: set[str] = set()
        self._handlers = {
            "task-received": self._on_received,
            "task-started": self._on_started,
            **dict.fromkeys(_END_EVENTS, self._on_ended),
        }
        self._receiver: Any = None
        self._thread = threading.Thread(target=self._capture, name="task durations")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._receiver.should_stop = True
        self._thread.join()
        self._app.close()

    def _capture(self) -> None:
        with self._app.connection_for_read() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers=self._handlers)
            for _ in self._receiver.itercapture(limit=None, timeout=None, wakeup=False):
                """The handlers have processed the event."""

    def _on_received(self, event: dict[str, Any]) -> None:
        if event["name"] == self._name:
            self._task_ids.add(event["uuid"])

    def _on_started(self, event: dict[str, Any]) -> None:
        self._start_times[event["uuid"]] = event["timestamp"]

    def _on_ended(self, event: dict[str, Any]) -> None:
        if event["uuid"] in self._task_ids and event["uuid"] in self._start_times:
            self.seconds.append(event["timestamp"] - self._start_times.pop(event["uuid"]))
