"""Looks after the whole every few seconds, from a thread: alerts, and lost hints should beat be away."""

import logging
import threading

from celery import Celery

from service.domain.failures import classify
from service.metrics import ALERTS, RECENT_DEAD_LETTERS
from service.resources import Resources
from service.usecases import alerts
from service.usecases.alerts import Alert
from workers.issuer.health import Health
from workers.sweep import sweep

_log = logging.getLogger(__name__)
_EVERY_SECONDS = 2.0
#: beat's own sweep comes first; what is still there then was left by it
_GRACE_SECONDS = 10.0


class Monitor:
    """Never in the way of issuing: whatever fails here is tried again a moment later."""

    def __init__(self, resources: Resources, celery: Celery, health: Health) -> None:
        self._resources = resources
        self._celery = celery
        self._health = health
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the look under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_SECONDS):
            try:
                self._look()
                sweep(self._celery, self._resources, _GRACE_SECONDS)
            except Exception as error:  # noqa: BLE001  # the next look may see better
                _log.info("nothing is seen for a moment: %s", classify(error))

    def _look(self) -> None:
        with self._resources.engine.begin() as tx:
            died = alerts.count_recent_deaths(tx)
        RECENT_DEAD_LETTERS.set(died)
        raised = alerts.active_alerts(self._resources.settings, died)
        for alert in Alert:
            self._tell(alert, raised.get(alert))

    def _tell(self, alert: Alert, why: str | None) -> None:
        """The log hears of the edges only."""
        was = alert in self._health.alerts
        if why and not was:
            _log.error("alert %s: %s", alert, why)
        elif was and not why:
            _log.info("alert %s is over", alert)
        ALERTS.labels(alert).set(why is not None)
        self._health.set_alert(alert, why)
