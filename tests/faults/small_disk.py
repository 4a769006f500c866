"""A small file system for one server, and filling it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_FILLER = "filler"
_CHUNK = b"\0" * 65_536


@contextmanager
def small_file_system(folder: Path, megabytes: int) -> Iterator[None]:
    """Mount a file system of that size at the folder; skip the test if this user must not mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def disk_full(folder: Path) -> Iterator[None]:
    """Fill the file system with a file that is deleted at the end of the block."""
    try:
        fill(folder)
        yield
    finally:
        make_room(folder)


def fill(folder: Path) -> None:
    """Fill the file system with a file."""
    with suppress(OSError), (folder / _FILLER).open("wb", buffering=0) as file:
        while file.write(_CHUNK):
            """Write until the disk is full."""


def make_room(folder: Path) -> None:
    """Delete that file."""
    (folder / _FILLER).unlink()
