"""Disks that are full: small file systems on which a row leaves no room."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults.hands import Hands
from tests.faults.rows import row
from tests.faults.scene import Scene
from tests.fixtures.running import running
from tests.system import System

#: what the parts need to start, and little more
_MEGABYTES = {"kafka": 96, "postgres": 192}
_FULL = "No space left on device"
_PIECE = b"\0" * 65_536


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """A small file system for Kafka and one for PostgreSQL; left out where none can be mounted."""
    with ExitStack() as mounted:
        folders = {name: tmp_path_factory.mktemp(f"disk-{name}") for name in _MEGABYTES}
        for name, folder in folders.items():
            mounted.enter_context(small(folder, _MEGABYTES[name]))
        yield folders


@pytest.fixture(scope="module")
def small_disks(disks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """The whole system with its log and its database on the small file systems."""
    directories = {name: folder / name for name, folder in disks.items()}
    with running(tmp_path_factory.mktemp("disks"), directories=directories) as system:
        yield system


@pytest.fixture
def ground(small_disks: System) -> System:
    """What the rows of this module run on."""
    return small_disks


@row(19, "Kafka", "its disk is full", seconds=60, within=240)
def test_kafkas_disk_is_full(scene: Scene, hands: Hands, disks: dict[str, Path]) -> None:
    """The broker gives up; users are told to come again, and what was acknowledged is there when it is back."""
    with scene.users():
        hands.breaks("kafka")
        with full(disks["kafka"]):
            scene.turns_red("api", "issuer")
            hands.bitten(_FULL in scene.log("kafka"), "the broker ran out of space")
        scene.stack.wait_up("kafka")
        scene.recovers(since=time.monotonic())


@row(25, "PostgreSQL", "its disk is full", seconds=60, within=240)
def test_the_databases_disk_is_full(scene: Scene, hands: Hands, disks: dict[str, Path]) -> None:
    """The issuer pauses and moves no offset; the gate goes on accepting; nothing is lost or spent."""
    coupon = scene.system.make_coupon(5)
    with scene.users() as crowd:
        hands.breaks("postgres")
        with full(disks["postgres"]):
            scene.turns_red("issuer")
            before = crowd.accepted
            scene.system.eventually(lambda: _FULL in scene.log("postgres"))
            scene.system.eventually(lambda: crowd.accepted > before + 20)
            hands.bitten(_FULL in scene.log("postgres"), "the database ran out of space")
        scene.stack.wait_up("postgres")
        scene.recovers(since=time.monotonic())
        page = scene.system.final(scene.receipt(coupon, 1))
        scene.demand((page["state"], page["attempts"]) == ("issued", 1), page)


@contextmanager
def small(folder: Path, megabytes: int) -> Iterator[None]:
    """A file system of that size at the folder; skips where this user may not mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Takes all that is free while the block lasts."""
    filler = folder / "filler"
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(_PIECE):
                """Until nothing is left."""
        yield
    finally:
        filler.unlink()
