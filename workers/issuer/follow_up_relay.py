"""Sends the Celery tasks that follow from commits of the API and the commands, which do not load Celery."""

from celery import Celery

from service.background_thread import BackgroundThread
from service.domain.errors import Unavailable
from service.log import get_logger
from service.log_events import LogEvent
from service.resources import Resources
from service.usecases import follow_up
from workers import messages

_log = get_logger(__name__)
#: below the timeout of the Redis client
_WAIT_SECONDS = 0.5
_PAUSE_SECONDS = 1.0


class FollowUpRelay(BackgroundThread):
    """A thread of its own. Several issuers share the work: each follow-up is taken by one of them."""

    def __init__(self, resources: Resources, celery: Celery) -> None:
        super().__init__("follow-ups")
        self._gate_admin = resources.gate_admin
        self._celery = celery

    def run(self) -> None:
        """Work until the thread is closed."""
        while not self._stopping.is_set():
            try:
                if received := follow_up.receive(self._gate_admin, _WAIT_SECONDS):
                    messages.send_follow_up(self._celery, self._gate_admin, received)
            except Unavailable:  # nothing was taken; readiness and other threads report Redis
                self._stopping.wait(_PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001  # the rows are committed, the sweep finds them
                _log.warning(LogEvent.MESSAGES_LOST, reason=str(error))
