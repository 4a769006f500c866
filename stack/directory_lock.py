"""A file lock that allows one stack per directory.

The supervisor and its reaper both hold the lock, so it is released only when no process of the stack is left.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from stack.errors import AlreadyRunning
from stack.files import read_exports

REAPER_TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.1


@contextmanager
def hold(directory: Path) -> Iterator[int]:
    """Lock a stack's directory and yield the lock's file descriptor.

    After a kill -9 of the supervisor, its reaper holds the lock while it stops the remaining processes; this call
    waits for it. Raises AlreadyRunning if the supervisor is alive, or if the reaper needs more than 30 seconds.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _acquire(directory, descriptor)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(directory: Path, descriptor: int) -> None:
    deadline = time.monotonic() + REAPER_TIMEOUT_SECONDS
    while not _try_lock(descriptor):
        supervisor_pid = int(os.pread(descriptor, 32, 0) or b"0")
        if _is_alive(supervisor_pid) or time.monotonic() > deadline:
            raise _already_running(directory, supervisor_pid)
        time.sleep(POLL_SECONDS)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _already_running(directory: Path, pid: int) -> AlreadyRunning:
    exported = read_exports(directory / "env")
    urls = "".join(f", {name}={exported[name]}" for name in ("API_URL", "FLOWER_URL") if name in exported)
    return AlreadyRunning(f"the stack in {directory} already runs as process {pid}{urls}; `kill {pid}` stops it")
