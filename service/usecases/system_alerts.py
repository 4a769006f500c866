"""The alerts of the whole system that are active now, with their causes in words."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from service.domain.alert_rules import ActiveProblem, AlertRules
from service.domain.failures import classify
from service.domain.system_alerts import ALERT_TEXTS, SystemAlert
from service.domain.system_observation import FRESH_HEALTH_SECONDS, IssuerObservation, Observation, Part
from service.gate.issuer_health import PublishedHealth
from service.log import get_logger
from service.log_events import LogEvent
from service.metrics import (
    CELERY_QUEUE_MESSAGES,
    DATABASE_CONNECTIONS,
    ISSUE_RESPONSES,
    OLDEST_UNDECIDED_AGE,
    PART_AVAILABLE,
    PART_READ_SECONDS,
    SWEEP_AGE_SECONDS,
    VERIFICATION_AGE_SECONDS,
    VERIFICATION_OK,
    WEBHOOK_ATTEMPTS,
    WORK_AGE_SECONDS,
    by_label,
    single,
)
from service.process_counts import count_by_label
from service.usecases.alerts import Alert
from service.usecases.readiness import PARTS, Readiness, ReadinessCheck
from service.usecases.system_values import SystemReading, SystemValues

#: an alert is active within fifteen seconds of its cause: this, the seconds that its cause must last, and those until
#: an issuer that was killed is missed
_INTERVAL_SECONDS = 2.0
#: the name of an issuer's connections to PostgreSQL
_ISSUER_CONNECTIONS = "issuer"
#: the queue of the sweep
_SWEEP_QUEUE = "maintenance"
_MINUTE_SECONDS, _HOUR_SECONDS = 60, 3600
_log = get_logger(__name__)


class SystemAlerts:
    """Observes the system every two seconds, from an event loop, so that it can say since when something is wrong."""

    def __init__(self, readiness: ReadinessCheck, values: SystemValues) -> None:
        self._readiness = readiness
        self._values = values
        self._rules = AlertRules()
        self._observing: asyncio.Task[None] | None = None
        #: when the last observation was made; None before the first one. It grows old while observations fail, and what
        #: `active` returns with it
        self.observed_at: datetime | None = None

    def start(self) -> None:
        """Begin to observe."""
        self._observing = asyncio.create_task(self._observe_repeatedly(), name="system alerts")

    async def stop(self) -> None:
        """End after the observation in progress was cancelled."""
        if self._observing:
            self._observing.cancel()
            await asyncio.gather(self._observing, return_exceptions=True)

    def active(self) -> list[SystemAlert]:
        """Return the active alerts, causes first."""
        monotonic_now, now = time.monotonic(), datetime.now(UTC)
        return [_alert(problem, monotonic_now, now) for problem in self._rules.active()]

    async def _observe_repeatedly(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await self._observe()
            except Exception as error:  # noqa: BLE001  # the next observation may succeed
                _log.warning(LogEvent.ALERTS_NOT_DERIVED, reason=str(classify(error)))
            await asyncio.sleep(max(0.0, began + _INTERVAL_SECONDS - time.monotonic()))

    async def _observe(self) -> None:
        readiness, reading, responses = await asyncio.gather(
            self._readiness.check(),
            asyncio.to_thread(self._values.observe),
            asyncio.to_thread(count_by_label, ISSUE_RESPONSES),
        )
        self._rules.observe(_observation(readiness, reading, responses))
        self.observed_at = datetime.now(UTC)


def _observation(readiness: Readiness, reading: SystemReading, responses: Mapping[str, float]) -> Observation:
    values = reading.values
    reasons = {**readiness.reasons, **reading.faults}
    proof_ok = single(values, VERIFICATION_OK)
    return Observation(
        observed_at=time.monotonic(),
        available={Part(part): bool(answers) for part, answers in by_label(values, PART_AVAILABLE).items()},
        ready={Part(part): part not in readiness.reasons for part in PARTS},
        reasons={part: _own_words(reasons[part]) for part in Part if part in reasons},
        database_read_seconds=by_label(values, PART_READ_SECONDS).get(Part.POSTGRESQL),
        issuers=None if reading.issuers is None else [_issuer(published) for published in reading.issuers],
        issuer_connections=by_label(values, DATABASE_CONNECTIONS).get(_ISSUER_CONNECTIONS),
        undecided_age_seconds=by_label(values, OLDEST_UNDECIDED_AGE),
        sweep_age_seconds=single(values, SWEEP_AGE_SECONDS),
        maintenance_messages=by_label(values, CELERY_QUEUE_MESSAGES).get(_SWEEP_QUEUE),
        webhook_attempts=by_label(values, WEBHOOK_ATTEMPTS),
        webhook_failure=reading.webhook_failure,
        work_age_seconds=by_label(values, WORK_AGE_SECONDS),
        service_alerts=_service_alerts(readiness, reading),
        proof_ok=None if proof_ok is None else bool(proof_ok),
        proof_age_seconds=single(values, VERIFICATION_AGE_SECONDS) or 0.0,
        responses=responses,
    )


def _service_alerts(readiness: Readiness, reading: SystemReading) -> dict[str, str]:
    """Return the alerts that the service finds, as this process and the issuers see them.

    Which keys are missing is said of issuers only: they decide nothing without one.
    """
    own = {alert: why for alert, why in readiness.alerts.items() if alert != Alert.KEY_MISSING}
    fresh = [published.health for published in reading.issuers or () if published.age_seconds <= FRESH_HEALTH_SECONDS]
    return {alert: why for health in fresh for alert, why in health.alerts.items()} | own


def _own_words(reason: str) -> str:
    """Return what the part said: an error of this service begins with the part's name."""
    return reason.partition(" is unavailable: ")[2] or reason


def _issuer(published: PublishedHealth) -> IssuerObservation:
    health = published.health
    return IssuerObservation(
        published.age_seconds,
        health.iteration_age_seconds,
        health.write_seconds,
        health.writes,
        tuple(health.reasons.values()),
    )


def _alert(active: ActiveProblem, monotonic_now: float, now: datetime) -> SystemAlert:
    """Say a problem in words; both times are the present."""
    name, problem, since = active
    text, lasts_seconds = ALERT_TEXTS[name], monotonic_now - since
    cause = problem.text.replace("{}", _duration(lasts_seconds))
    return SystemAlert(
        name,
        text.severity,
        text.summary.replace("{subject}", problem.subject),
        text.action,
        f"{cause}: {' '.join(problem.reason.split())}" if problem.reason else cause,
        now - timedelta(seconds=lasts_seconds),
    )


def _duration(seconds: float) -> str:
    if seconds < 2 * _MINUTE_SECONDS:
        return f"{seconds:.0f} s"
    if seconds < 2 * _HOUR_SECONDS:
        return f"{seconds / _MINUTE_SECONDS:.0f} min"
    return f"{seconds / _HOUR_SECONDS:.0f} h"
