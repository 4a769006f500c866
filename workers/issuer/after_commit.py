"""Messages to Celery and the gate after a commit, sent by a thread of their own; the sweep repeats what is dropped."""

import queue
import threading
import time

from celery import Celery

from service.domain.errors import Unavailable
from service.log import get_logger
from service.log_events import LogEvent
from service.resources import Resources
from service.store.outbox import OutboxKind
from service.usecases.write_plan import IssueResult
from workers import messages

_log = get_logger(__name__)
_MAX_WAITING = 1_000
#: a task takes all outbox entries of its kind that are due, so one message for many commits is enough; the first commit
#: after a pause sends its message at once
_OUTBOX_INTERVAL_SECONDS = 0.5


class AfterCommit:
    """A bounded queue and its thread, so that the issuing thread never waits for Redis or Celery's broker."""

    def __init__(self, celery: Celery, resources: Resources) -> None:
        self._celery = celery
        self._log_id = resources.log_id
        self._gate_admin = resources.gate_admin
        self._waiting: queue.Queue[IssueResult | None] = queue.Queue(_MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="after-commit", daemon=True)
        self._thread.start()

    def publish(self, result: IssueResult) -> None:
        """Queue a committed result; never waits: when a thousand results are queued, this one is dropped."""
        try:
            self._waiting.put_nowait(result)
        except queue.Full:
            _log.warning(LogEvent.MESSAGES_LOST, reason="the queue is full")

    def close(self, timeout_seconds: float) -> None:
        """Send all queued results. Takes at most twice the timeout."""
        try:
            self._waiting.put(None, timeout=timeout_seconds)
        except queue.Full:
            return
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        """Send until the end mark. Kinds of outbox entries wait for their interval, everything else is sent at once."""
        kinds: set[OutboxKind] = set()
        next_outbox_at = 0.0
        ended = False
        while not ended:
            wait_seconds = max(0.0, next_outbox_at - time.monotonic()) if kinds else None
            result, ended = self._next_result(wait_seconds)
            kinds |= result.outbox_kinds
            due: set[OutboxKind] = set()
            if kinds and (ended or time.monotonic() >= next_outbox_at):
                due, kinds = kinds, set()
                next_outbox_at = time.monotonic() + _OUTBOX_INTERVAL_SECONDS
            self._send(result, due)

    def _next_result(self, wait_seconds: float | None) -> tuple[IssueResult, bool]:
        """Return the merged queued results (empty after the timeout), and True if the end mark was read."""
        merged = IssueResult()
        try:
            result = self._waiting.get(timeout=wait_seconds)
            while result is not None:
                merged.merge(result)
                result = self._waiting.get_nowait()
        except queue.Empty:
            return merged, False
        return merged, True

    def _send(self, result: IssueResult, kinds: set[OutboxKind]) -> None:
        try:
            try:
                self._gate_admin.publish_progress(result.next_offsets)
            except Unavailable as error:  # Celery's broker may be another server that answers
                _log.info(LogEvent.GATE_UPDATE_LOST, reason=str(error))
            messages.send_retry(self._celery, self._log_id, result.held, attempts_made=1, failures=result.held_failures)
            messages.send_outbox_tasks(self._celery, self._gate_admin, kinds, dead=result.has_dead_letters)
        except Exception as error:  # noqa: BLE001  # the rows are committed, the sweep finds them
            _log.warning(LogEvent.MESSAGES_LOST, reason=str(error))


def build_celery_client() -> Celery:
    """Return a Celery application that only sends: it has no tasks and no worker."""
    celery = Celery("issuer", set_as_current=False)
    celery.config_from_object("celeryconfig")
    return celery
