"""Rows in which a disk is full: Kafka or PostgreSQL on a small file system without free space."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.fault_injection import FaultInjector
from tests.faults.rows import row
from tests.faults.scenario import Scenario
from tests.faults.small_disk import disk_full, small_file_system
from tests.fixtures.running import running
from tests.system import System

#: what the servers need to start, and little more
_MEGABYTES = {"kafka": 96, "postgres": 192}
_DISK_FULL = "No space left on device"


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A small file system for Kafka and one for PostgreSQL; skip if mounting is not allowed."""
    with ExitStack() as mounted:
        folders = {name: tmp_path_factory.mktemp(f"disk-{name}") for name in _MEGABYTES}
        for name, folder in folders.items():
            mounted.enter_context(small_file_system(folder, _MEGABYTES[name]))
        yield folders


@pytest.fixture(scope="module")
def system_on_small_disks(disks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The whole system, with Kafka and PostgreSQL on the small file systems."""
    directories = {name: folder / name for name, folder in disks.items()}
    with running(tmp_path_factory.mktemp("disks"), directories=directories) as system:
        yield system


@pytest.fixture
def system_under_test(system_on_small_disks: System) -> System:
    """The system that this module's rows run on."""
    return system_on_small_disks


@row(19, "Kafka", "its disk is full", seconds=60, within=240)
def test_kafkas_disk_is_full(scenario: Scenario, faults: FaultInjector, disks: dict[str, Path]) -> None:
    """The broker exits; users get 503, and acknowledged records are there after its restart."""
    with scenario.under_load():
        faults.allow_restart("kafka")
        with disk_full(disks["kafka"]):
            scenario.becomes_unready("api", "issuer")
            faults.confirm(_DISK_FULL in scenario.process_log("kafka"), "the broker ran out of space")
        scenario.stack.wait_up("kafka")
        scenario.recovers(since=time.monotonic())


@row(25, "PostgreSQL", "its disk is full", seconds=60, within=240)
def test_the_databases_disk_is_full(scenario: Scenario, faults: FaultInjector, disks: dict[str, Path]) -> None:
    """The issuer pauses and moves no offset, the gate still accepts, nothing is lost, and no attempt is counted."""
    coupon = scenario.system.make_coupon(5)
    with scenario.under_load() as load:
        faults.allow_restart("postgres")
        with disk_full(disks["postgres"]):
            scenario.becomes_unready("issuer")
            before = load.accepted
            scenario.system.eventually(lambda: _DISK_FULL in scenario.process_log("postgres"))
            scenario.system.eventually(lambda: load.accepted > before + 20)
            faults.confirm(_DISK_FULL in scenario.process_log("postgres"), "the database ran out of space")
        scenario.stack.wait_up("postgres")
        scenario.recovers(since=time.monotonic())
        page = scenario.system.wait_until_final(scenario.submit(coupon, 1))
        scenario.check((page["state"], page["attempts"]) == ("issued", 1), page)
