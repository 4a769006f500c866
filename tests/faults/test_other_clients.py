"""Rows in which another client of Kafka keeps partitions from being decided: readiness names it, and it leaves."""

import time
from functools import partial

import httpx

from service.usecases.alerts import Alert
from tests.faults.fault_injection import FaultInjector
from tests.faults.invariants import Invariant
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.other_clients import NAMED_STRANGER, open_transaction, stranger_in_group

#: promised: a partition that nobody decides is reported within this time
_REPORTED_SECONDS = 30.0


@row(43, "issuer", "a consumer of another application joins its group", seconds=40)
def test_a_stranger_takes_partitions(scenario: Scenario, faults: FaultInjector) -> None:
    """The issuer is unready and the API raises an alert, both with the stranger's name, until it leaves."""
    with scenario.under_load():
        with stranger_in_group(scenario.stack.kafka_bootstrap_servers) as held:
            faults.confirm(held, "the stranger holds partitions")
            becomes_reported(scenario, NAMED_STRANGER)
        scenario.issues_on_every_partition(time.monotonic(), _REPORTED_SECONDS)
        becomes_unreported(scenario)


@row(44, "log", "another producer opens a transaction and does not end it", seconds=40)
def test_a_transaction_stays_open(scenario: Scenario, faults: FaultInjector) -> None:
    """The issuer is unready and the API raises an alert, both with the reason, until the transaction ends."""
    coupon = scenario.system.make_coupon(10)
    with scenario.under_load():
        with open_transaction(scenario.stack.kafka_bootstrap_servers, coupon):
            request_id = scenario.submit(coupon, 1)
            becomes_reported(scenario, "an open transaction of another producer hides the records")
            undecided = scenario.system.read_status(request_id)["state"] == "queued"
            faults.confirm(undecided, "the records behind the transaction are undecided")
        scenario.issues_on_every_partition(time.monotonic(), _REPORTED_SECONDS)
        becomes_unreported(scenario)


def becomes_reported(scenario: Scenario, reason: str) -> None:
    """Check that the issuer is unready and that it and the ready API have the alert, all with the reason."""

    def reported() -> bool:
        issuer, api = (read_readiness(scenario, name) for name in ("issuer", "api"))
        faults, alerts = issuer.json()["faults"], [answer.json()["alerts"] for answer in (issuer, api)]
        return (
            (issuer.status_code, api.status_code) == (503, 200)
            and any(reason in fault for fault in faults.values())
            and all(reason in active.get(Alert.UNDECIDED, "") for active in alerts)
        )

    scenario.check_becomes_true(reported, _REPORTED_SECONDS, Invariant.READINESS, reason)


def becomes_unreported(scenario: Scenario) -> None:
    """Check that issuer and API become ready again and that the alert ends."""

    def unreported(name: str) -> bool:
        answer = read_readiness(scenario, name)
        return answer.status_code == 200 and Alert.UNDECIDED not in answer.json()["alerts"]

    for name in ("issuer", "api"):
        scenario.check_becomes_true(
            partial(unreported, name), _REPORTED_SECONDS, Invariant.READINESS, f"{name} ready, without an alert"
        )


def read_readiness(scenario: Scenario, name: str) -> httpx.Response:
    """Return an operator's view of a process's readiness."""
    return httpx.get(f"{scenario.urls[name]}/readyz", timeout=3, auth=scenario.system.credentials)
