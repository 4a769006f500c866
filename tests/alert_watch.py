"""Watches everything that reports alerts: `GET /alerts`, the stream of the dashboard, and Prometheus."""

import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import httpx

from tests.event_streams import read_events
from tests.system import System
from tests.waiting import eventually

#: promised: a fault is reported within this time after it began
REPORTED_WITHIN_SECONDS = 15.0
#: the longest recovery is that of Kafka, which starts again
_MENDED_SECONDS = 45.0
_POLL_SECONDS = 0.3
#: what was observed longer ago says nothing about now
_MAX_AGE = timedelta(seconds=6)


class Alert(NamedTuple):
    """An active alert; Prometheus has no cause."""

    name: str
    cause: str = ""


class AlertSource:
    """What reports alerts."""

    def __init__(self) -> None:
        #: the causes of each alert that was ever active
        self.seen: dict[str, set[str]] = defaultdict(set)
        #: the names of those that are active now; None: that is not known
        self.active: list[str] | None = None
        self.observed_at = datetime.min.replace(tzinfo=UTC)

    def report(self, alerts: Iterable[Alert], observed_at: str | None) -> None:
        """Keep the alerts of an observation. One that is too old says nothing about now."""
        if observed_at is None or datetime.now(UTC) - datetime.fromisoformat(observed_at) > _MAX_AGE:
            self.active = None
            return
        found = list(alerts)
        for alert in found:
            self.seen[alert.name].add(alert.cause)
        self.observed_at = datetime.fromisoformat(observed_at)
        self.active = [alert.name for alert in found]


class AlertWatch:
    """Reads the alerts all the time, and keeps every one that was ever active."""

    def __init__(self, system: System, prometheus: httpx.Client | None) -> None:
        """`prometheus` is a client of a server that scrapes the system, if there is one."""
        self._system = system
        self._prometheus = prometheus
        self._api, self._dashboard, self._server = AlertSource(), AlertSource(), AlertSource()
        self.sources: Mapping[str, AlertSource] = {"GET /alerts": self._api, "dashboard": self._dashboard} | (
            {"Prometheus": self._server} if prometheus else {}
        )
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._poll, name="alert watch"),
            threading.Thread(target=self._follow, name="dashboard watch"),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: all(source.active is not None for source in self.sources.values()))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _poll(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            answer = self._system.http.get("/alerts").raise_for_status().json()
            self._api.report(_alerts(answer["alerts"]), answer["observed_at"])
            if self._prometheus:
                (group,) = self._prometheus.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]
                firing = [rule["name"] for rule in group["rules"] if rule.get("state") == "firing"]
                self._server.report(map(Alert, firing), group["lastEvaluation"])

    def _follow(self) -> None:
        while not self._stopping.is_set():
            self._dashboard.active = None
            with self._system.http.stream("GET", "/dashboard/events") as response:
                for event in read_events(response):
                    if event.name == "overview":
                        self._dashboard.report(_alerts(event.data["alerts"]), event.data["alerts_observed_at"])
                    if self._stopping.is_set():
                        return

    def forget(self) -> None:
        """Forget which alerts were active."""
        for source in self.sources.values():
            source.seen.clear()

    def wait_for(self, name: str, began: float) -> None:
        """Wait until each source has reported this alert, alone. Fail REPORTED_WITHIN_SECONDS after `began`."""
        reported = set[str]()

        def is_reported_everywhere() -> bool:
            reported.update(where for where, source in self.sources.items() if source.active == [name])
            assert len(reported) == len(self.sources), {where: source.active for where, source in self.sources.items()}
            return True

        eventually(is_reported_everywhere, within_seconds=REPORTED_WITHIN_SECONDS - (time.monotonic() - began))

    def wait_until_observed_after(self, moment: datetime) -> None:
        """Wait until each source has reported an observation that is later."""
        eventually(lambda: all(source.observed_at > moment for source in self.sources.values()), within_seconds=30.0)

    def wait_until_none(self) -> None:
        """Wait until each source reports that no alert is active."""

        def is_none_active() -> bool:
            active = {where: source.active for where, source in self.sources.items() if source.active != []}
            assert not active, active
            return True

        eventually(is_none_active, within_seconds=_MENDED_SECONDS)


def _alerts(found: Iterable[Mapping[str, Any]]) -> Iterator[Alert]:
    return (Alert(alert["name"], alert["cause"]) for alert in found)
