"""Whether the issuer can issue, and why not."""

import time
from collections.abc import Mapping

#: why an issuer is not ready that has begun and holds no partition yet
JOINING = "the issuer has not joined its consumer group yet"
#: an iteration of the loop that lasts longer is stuck in a call; above the time limit of database statements
_MAX_ITERATION_SECONDS = 8.0


class Health:
    """The reasons why the issuer is not ready, and its alerts, each by subject."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {"issuer": JOINING}
        self._alerts: dict[str, str] = {}
        self._stalled: Mapping[int, str] = {}
        self._last_iteration: float | None = None

    def record_iteration(self) -> None:
        """Record that the loop has begun another iteration."""
        self._last_iteration = time.monotonic()

    def set_starting(self, reason: str) -> None:
        """Say why the issuer has not begun: what it waits for."""
        self.set_unready("issuer", reason)

    def set_unready(self, subject: str, reason: str) -> None:
        """Add or replace the reason of a subject."""
        self._reasons[subject] = reason

    def set_ready(self, subject: str) -> None:
        """Remove the reason of a subject."""
        self._reasons.pop(subject, None)

    def set_stalled(self, reasons: Mapping[int, str]) -> None:
        """Replace the partitions that nobody decides, with the reasons."""
        self._stalled = reasons

    def set_alert(self, subject: str, why: str | None) -> None:
        """Raise an alert that needs an operator, or clear it with None; an alert alone does not make it unready."""
        if why:
            self._alerts[subject] = why
        else:
            self._alerts.pop(subject, None)

    @property
    def iteration_age_seconds(self) -> float:
        """Seconds since the loop began its present iteration; 0 while it has not begun yet."""
        return 0.0 if self._last_iteration is None else time.monotonic() - self._last_iteration

    @property
    def alerts(self) -> dict[str, str]:
        """Every alert, by subject."""
        return dict(self._alerts)

    @property
    def reasons(self) -> dict[str, str]:
        """Every reason for not being ready, by subject; empty when ready.

        The issuer's own reason for a partition says more than that nobody decides it.
        """
        reasons = {f"partition {partition}": why for partition, why in self._stalled.items()} | self._reasons
        if (stuck := self.iteration_age_seconds) > _MAX_ITERATION_SECONDS:
            reasons.setdefault("issuer", f"the issuer loop has made no progress for {stuck:.0f} s")
        return reasons
