"""Watches every place that says alerts: `GET /alerts`, the stream of the dashboard, and Prometheus."""

import threading
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

import httpx

from tests.event_streams import read_events
from tests.system import System
from tests.waiting import eventually

#: promised: a fault is said within this time
SAID_SECONDS = 15.0
#: the longest recovery is that of Kafka, which starts again
_MENDED_SECONDS = 45.0
_POLL_SECONDS = 0.3


class Alert(NamedTuple):
    """An active alert; Prometheus has no cause."""

    name: str
    cause: str = ""


class Place:
    """A place that says alerts."""

    def __init__(self) -> None:
        #: the last cause of each alert that was ever active
        self.seen: dict[str, str] = {}
        #: the names of those that are active now; None: nothing was read yet
        self.active: list[str] | None = None

    def show(self, alerts: Iterable[Alert]) -> None:
        """Keep what the place says now."""
        found = list(alerts)
        self.seen |= {alert.name: alert.cause for alert in found}
        self.active = [alert.name for alert in found]


class AlertWatch:
    """Reads the alerts all the time, and keeps every one that was ever active."""

    def __init__(self, system: System, prometheus: httpx.Client | None) -> None:
        """`prometheus` is a client of a server that scrapes the system, if there is one."""
        self._system = system
        self._prometheus = prometheus
        self._api, self._dashboard, self._server = Place(), Place(), Place()
        self.places: Mapping[str, Place] = {"GET /alerts": self._api, "dashboard": self._dashboard} | (
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
        eventually(lambda: all(place.active is not None for place in self.places.values()))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _poll(self) -> None:
        while not self._stopping.wait(_POLL_SECONDS):
            answer = self._system.http.get("/alerts").raise_for_status().json()
            if answer["observed_at"]:
                self._api.show(Alert(alert["name"], alert["cause"]) for alert in answer["alerts"])
            if self._prometheus:
                alerts = self._prometheus.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
                firing = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
                self._server.show(map(Alert, firing))

    def _follow(self) -> None:
        with self._system.http.stream("GET", "/dashboard/events") as response:
            for event in read_events(response):
                if event.name == "overview" and event.data["alerts_observed_at"]:
                    self._dashboard.show(Alert(alert["name"], alert["cause"]) for alert in event.data["alerts"])
                if self._stopping.is_set():
                    return

    def forget(self) -> None:
        """Forget which alerts were active."""
        for place in self.places.values():
            place.seen.clear()

    def wait_for(self, name: str) -> None:
        """Wait until each place has said this alert, alone. Fail after SAID_SECONDS."""
        said = set[str]()

        def says_it_everywhere() -> bool:
            said.update(where for where, place in self.places.items() if place.active == [name])
            assert len(said) == len(self.places), {where: place.active for where, place in self.places.items()}
            return True

        eventually(says_it_everywhere, within_seconds=SAID_SECONDS)

    def wait_until_well(self) -> None:
        """Wait until no alert is active."""

        def is_well() -> bool:
            active = {where: place.active for where, place in self.places.items() if place.active}
            assert not active, active
            return True

        eventually(is_well, within_seconds=_MENDED_SECONDS)
