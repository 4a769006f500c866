"""Body of the list of active alerts."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

from service.api.schemas.base import Time
from service.domain.system_alerts import AlertName, Severity, SystemAlert


class AlertView(Struct, frozen=True):
    """An alert: what it means, what was found, what to do, and the page in the repository that says more."""

    name: AlertName
    severity: Severity
    summary: str
    cause: str
    since: datetime
    action: str
    runbook: str


class AlertsView(Struct, frozen=True):
    """The active alerts, causes before effects; none while all is well.

    They are those of `observed_at` (null: not known yet). If that is older than six seconds, the state is not known.
    """

    observed_at: Time | None
    alerts: list[AlertView]


def alert_views(alerts: Sequence[SystemAlert]) -> list[AlertView]:
    """Render alerts."""
    return [
        AlertView(alert.name, alert.severity, alert.summary, alert.cause, alert.since, alert.action, alert.name.runbook)
        for alert in alerts
    ]


def alerts_view(alerts: Sequence[SystemAlert], observed_at: datetime | None) -> AlertsView:
    """Render the active alerts, and when they were observed."""
    return AlertsView(observed_at, alert_views(alerts))
