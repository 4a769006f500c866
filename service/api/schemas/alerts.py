"""Body of the list of active alerts."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct

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
    """The active alerts, causes before effects; none while all is well."""

    alerts: list[AlertView]


def alerts_view(alerts: Sequence[SystemAlert]) -> AlertsView:
    """Render the active alerts."""
    return AlertsView(
        [
            AlertView(
                alert.name,
                alert.severity,
                alert.summary,
                alert.cause,
                alert.since,
                alert.action,
                alert.name.runbook,
            )
            for alert in alerts
        ]
    )
