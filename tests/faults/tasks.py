"""How long Celery's tasks run, by Celery's own events."""

import threading
from collections import defaultdict
from typing import Any, Self

from celery import Celery

_ENDS = ("task-succeeded", "task-retried", "task-failed")


class Tasks:
    """Listens while the block lasts."""

    def __init__(self, broker_url: str, name: str) -> None:
        #: seconds that each run of the task took
        self.took: list[float] = []
        self._name = name
        self._app = Celery(broker=broker_url, set_as_current=False)
        self._started: defaultdict[str, float] = defaultdict(float)
        self._mine: set[str] = set()
        ends = dict.fromkeys(_ENDS, self._ended)
        self._handlers = {"task-received": self._received, "task-started": self._begun, **ends}
        self._receiver: Any = None
        self._thread = threading.Thread(target=self._listen, name="tasks")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._receiver.should_stop = True
        self._thread.join()
        self._app.close()

    def _listen(self) -> None:
        with self._app.connection_for_read() as connection:
            self._receiver = self._app.events.Receiver(connection, handlers=self._handlers)
            for _ in self._receiver.itercapture(limit=None, timeout=None, wakeup=False):
                """Handlers have taken it in."""

    def _received(self, event: dict[str, Any]) -> None:
        if event["name"] == self._name:
            self._mine.add(event["uuid"])

    def _begun(self, event: dict[str, Any]) -> None:
        self._started[event["uuid"]] = event["timestamp"]

    def _ended(self, event: dict[str, Any]) -> None:
        if event["uuid"] in self._mine and event["uuid"] in self._started:
            self.took.append(event["timestamp"] - self._started.pop(event["uuid"]))
