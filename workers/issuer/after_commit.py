"""Messages to Celery and the gate after a commit, sent by a thread of their own; the sweep repeats what is dropped."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from celery import Celery

from service import tracing
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
#: a position in the queue may be so old: each update is a call to Redis beside the issuing thread
_PROGRESS_INTERVAL_SECONDS = 0.03


Waiting = TypeVar("Waiting")


class _Paced(Generic[Waiting]):
    """What waits to be sent: at once after a pause, otherwise an interval after the last time."""

    def __init__(self, empty: Callable[[], Waiting], interval_seconds: float) -> None:
        self._empty = empty
        self.waiting = empty()
        self._interval_seconds = interval_seconds
        self._next_at = 0.0

    def wait_seconds(self) -> float | None:
        """Return after how many seconds take() returns what waits; None if nothing does."""
        return max(0.0, self._next_at - time.monotonic()) if self.waiting else None

    def take(self, *, now: bool) -> Waiting:
        """Remove and return what waits if its time has come or it must go now; otherwise return nothing."""
        if not self.waiting or not (now or time.monotonic() >= self._next_at):
            return self._empty()
        taken, self.waiting = self.waiting, self._empty()
        self._next_at = time.monotonic() + self._interval_seconds
        return taken


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
        """Send until the end mark. Progress and kinds of outbox entries wait for their interval, the rest does not."""
        progress: _Paced[dict[int, int]] = _Paced(dict, _PROGRESS_INTERVAL_SECONDS)
        #: with the trace that the message continues
        kinds: _Paced[dict[OutboxKind, str]] = _Paced(dict, _OUTBOX_INTERVAL_SECONDS)
        ended = False
        while not ended:
            waits = [wait for one in (progress, kinds) if (wait := one.wait_seconds()) is not None]
            result, ended = self._next_result(min(waits, default=None))
            progress.waiting |= result.next_offsets
            for kind in result.outbox_kinds:
                kinds.waiting[kind] = kinds.waiting.get(kind) or result.traceparent
            self._send(result, progress.take(now=ended), kinds.take(now=ended))

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

    def _send(self, result: IssueResult, progress: Mapping[int, int], kinds: Mapping[OutboxKind, str]) -> None:
        try:
            try:
                self._gate_admin.publish_progress(progress)
            except Unavailable as error:  # Celery's broker may be another server that answers
                _log.info(LogEvent.GATE_UPDATE_LOST, reason=str(error))
            with tracing.continued(result.traceparent):
                messages.send_retry(
                    self._celery, self._log_id, result.held, attempts_made=1, failures=result.held_failures
                )
                messages.send_outbox_tasks(self._celery, self._gate_admin, (), dead=result.has_dead_letters)
            for kind, traceparent in kinds.items():
                with tracing.continued(traceparent):
                    messages.send_outbox_tasks(self._celery, self._gate_admin, (kind,), dead=False)
        except Exception as error:  # noqa: BLE001  # the rows are committed, the sweep finds them
            _log.warning(LogEvent.MESSAGES_LOST, reason=str(error))


def build_celery_client() -> Celery:
    """Return a Celery application that only sends: it has no tasks and no worker."""
    celery = Celery("issuer", set_as_current=False)
    celery.config_from_object("celeryconfig")
    return celery
