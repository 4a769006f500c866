"""A periodic check beside the issuer: raises and clears alerts, and runs the sweep in case beat is down."""

from celery import Celery

from service.background_thread import BackgroundThread
from service.domain.failures import classify
from service.load_sampler import observe_pool
from service.log import get_logger
from service.log_events import LogEvent
from service.resources import Resources
from service.stream.clients import issuer_client_id
from service.usecases import alerts
from service.usecases.alerts import Alert
from service.usecases.undecided import UndecidedPartitions
from workers.issuer.health import Health
from workers.sweep import sweep

_log = get_logger(__name__)
_INTERVAL_SECONDS = 2.0
#: longer than the grace period of beat's sweep, so that this sweep only finds rows that beat's missed
_GRACE_SECONDS = 10.0


class Monitor(BackgroundThread):
    """A thread of its own, so that issuing never waits for it; a check that fails is repeated at the next interval."""

    def __init__(self, resources: Resources, celery: Celery, health: Health) -> None:
        super().__init__("monitor")
        self._resources = resources
        self._celery = celery
        self._health = health
        self._undecided = UndecidedPartitions(resources.settings, resources.engine, resources.log_watch)
        self._client_id = issuer_client_id(resources.settings)

    def run(self) -> None:
        """Work until the thread is closed."""
        while not self._stopping.wait(_INTERVAL_SECONDS):
            observe_pool(self._resources.engine)
            try:
                self.check()
                sweep(self._celery, self._resources, _GRACE_SECONDS)
            except Exception as error:  # noqa: BLE001  # the next check may succeed
                _log.info(LogEvent.ALERT_CHECK_FAILED, reason=str(classify(error)))

    def check(self) -> None:
        """Publish the alerts and the stalled partitions once; raise the database's errors."""
        with self._resources.engine.begin() as tx:
            counts = alerts.count_dead_letters(tx)
            self._resources.key_register.compare(tx)
        undecided = self._undecided.check()
        self._health.set_stalled(
            {
                late.partition: f"nothing decided for {late.age_seconds:.0f} s, {late.reason}"
                for late in undecided.late
                if late.stalled and not late.is_held_by_another_issuer(self._client_id)
            }
        )
        active = alerts.active_alerts(
            self._resources.settings,
            counts,
            undecided,
            other_log=self._resources.log_watch.seen_fault,
            topic=self._resources.log_watch.alert,
            missing_key=self._resources.key_register.fault,
            ended_key=self._resources.key_register.alert,
        )
        before = self._health.alerts
        for alert in Alert:
            reason = active.get(alert)
            if reason and alert not in before:
                _log.error(LogEvent.ALERT_RAISED, alert=alert.value, reason=reason)
            elif alert in before and not reason:
                _log.info(LogEvent.ALERT_CLEARED, alert=alert.value)
            self._health.set_alert(alert, reason)
