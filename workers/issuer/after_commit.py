"""After a commit: tells Celery and the gate, from a thread of its own; what it drops the sweep finds."""

import logging
import queue
import threading

from celery import Celery

from service.domain.errors import Unavailable
from service.resources import Resources
from service.usecases.write_plan import IssueResult
from workers import messages

_log = logging.getLogger(__name__)
_WAITING_MOST = 1_000


class AfterCommit:
    """The issuing thread puts and goes on; it never talks to Redis itself."""

    def __init__(self, celery: Celery, resources: Resources) -> None:
        self._celery = celery
        self._log_id = resources.log_id
        self._gate_admin = resources.gate_admin
        self._polls: queue.Queue[IssueResult | None] = queue.Queue(_WAITING_MOST)
        self._thread = threading.Thread(target=self._run, name="teller", daemon=True)
        self._thread.start()

    def publish(self, issued: IssueResult) -> None:
        """Never waits: above a thousand untold polls the newest is dropped."""
        try:
            self._polls.put_nowait(issued)
        except queue.Full:
            _log.warning("a poll's hints are dropped; the sweep will find its rows")

    def close(self, timeout_seconds: float) -> None:
        """Tells what waits, for so long at most."""
        try:
            self._polls.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (issued := self._next()) is not None:
            try:
                self._tell(issued)
            except Exception as error:  # noqa: BLE001  # a hint: its row stays, the sweep finds it
                _log.warning("hints are lost, the sweep will find the rows: %s", error)

    def _next(self) -> IssueResult | None:
        """What came since the last time as one: however many polls, each kind is told once."""
        told = self._polls.get()
        while told is not None and not self._polls.empty():
            later = self._polls.get()
            if later is None:
                self._polls.put(None)
                break
            told.merge(later)
        return told

    def _tell(self, issued: IssueResult) -> None:
        try:
            self._gate_admin.publish_progress(issued.next_offsets)
        except Unavailable as error:
            _log.info("the gate was not told of the progress: %s", error)
        messages.send_retry(self._celery, self._log_id, issued.held, attempts_made=1)
        messages.send_outbox_tasks(self._celery, issued.outbox_kinds, dead=issued.has_dead_letters)


def build_celery_client() -> Celery:
    """A Celery that only sends: no tasks, no worker."""
    celery = Celery("issuer", set_as_current=False)
    celery.config_from_object("celeryconfig")
    return celery
