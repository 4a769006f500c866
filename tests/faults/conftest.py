"""Fixtures of every row: the running system, the fault injector and the invariant checker."""

from collections.abc import Iterator
from random import Random

import pytest

from tests.faults import postconditions
from tests.faults.database_sampling import DatabaseSampler
from tests.faults.fault_injection import FaultInjector
from tests.faults.invariants import InvariantChecker
from tests.faults.scenario import Scenario
from tests.faults.selection import checker_of, seed_of
from tests.system import System


@pytest.fixture
def checker(pytestconfig: pytest.Config) -> InvariantChecker:
    """Count every check of the run."""
    return checker_of(pytestconfig)


@pytest.fixture
def random(request: pytest.FixtureRequest) -> Random:
    """Random numbers of this row: the same for the same seed, regardless of which other rows run."""
    return Random(f"{seed_of(request.config)} {request.node.name}")


@pytest.fixture
def system_under_test(_started: System) -> System:
    """The system that a module's rows run on: the shared stack, unless the module overrides this fixture."""
    return _started


@pytest.fixture
def faults(system_under_test: System, checker: InvariantChecker) -> FaultInjector:
    """Inject faults into the running system."""
    return FaultInjector(system_under_test.stack, checker)


@pytest.fixture
def scenario(
    system_under_test: System, checker: InvariantChecker, faults: FaultInjector, random: Random
) -> Iterator[Scenario]:
    """The running system; after the row, undo its faults and check every promise."""
    system_under_test.wait_until_ready()
    process_ids = postconditions.process_ids(system_under_test)
    scenario = Scenario(system_under_test, checker, random)
    with DatabaseSampler(system_under_test.stack.database_url, checker, scenario.newest_coupon_before):
        yield scenario
        faults.undo_all()
        postconditions.check(scenario, faults, process_ids)
