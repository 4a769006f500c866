"""The row with a random storm over all parts."""

import time
from collections.abc import Callable

import pytest

from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.faults.storm import Storm

_FAULT_SECONDS, _QUIET_SECONDS = (3.0, 8.0), (1.0, 3.0)
#: share of many thousand requests; each one makes its batch be split
_FAILING = 0.004
#: time to process the backlog, most of it notices
_COMPLETION_SECONDS = 240.0


@row(41, "everything", "a random storm", seconds=300, within=3600)
def test_storm(
    scenario: Scenario,
    faults: FaultInjector,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """Random faults, several at a time, with quiet periods: accepted = issued + refused + dead, exactly."""
    storm = Storm(scenario, faults)
    scenario.completion_timeout_seconds = _COMPLETION_SECONDS
    ends = time.monotonic() + 60 * request.config.getoption("--storm-minutes")
    wanted = request.config.getoption("--storm-accepted")
    with scenario.under_load(per_second=600, at_once=64, failing=_FAILING) as load:
        while time.monotonic() < ends or load.accepted < wanted:
            with storm.period():
                time.sleep(scenario.random.uniform(*_FAULT_SECONDS))  # the length of the period is the fault
            time.sleep(scenario.random.uniform(*_QUIET_SECONDS))
    request.node.add_report_section("call", "storm", "\n".join([*storm.occurred, "skipped:", *storm.skipped]))
    faults.confirm(storm.occurred, "faults occurred")
    record_property("note", f"{load.accepted:,} accepted under {len(storm.occurred)} faults")
