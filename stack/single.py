"""One stack per directory: a lock that the supervisor and its guard hold, so that it is free once nothing runs."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from stack.errors import AlreadyRunning
from stack.files import read_exports

CLEARED_WITHIN_SECONDS = 30.0
POLL_SECONDS = 0.1


@contextmanager
def held(directory: Path) -> Iterator[int]:
    """Locks a stack's directory and gives the lock's descriptor; raises AlreadyRunning if its supervisor lives.

    After a kill -9 the guard holds the lock while it ends what was left: that is waited for.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _acquire(directory, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(directory: Path, descriptor: int) -> None:
    deadline = time.monotonic() + CLEARED_WITHIN_SECONDS
    while not _locked(descriptor):
        holder = _holder(descriptor)
        if _lives(holder) or time.monotonic() > deadline:
            raise AlreadyRunning(_told(directory, holder))
        time.sleep(POLL_SECONDS)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> int:
    return int(os.pread(descriptor, 32, 0) or b"0")


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _told(directory: Path, holder: int) -> str:
    running = read_exports(directory / "env")
    urls = "".join(f", {name}={running[name]}" for name in ("API_URL", "FLOWER_URL") if name in running)
    return f"the stack in {directory} already runs as process {holder}{urls}; `kill {holder}` stops it"
