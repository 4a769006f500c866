"""Stop, kill, freeze and thaw processes together with all their descendants."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from signal import SIGKILL

import psutil

KILL_TIMEOUT_SECONDS = 5.0
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class StopTarget:
    """A process group leader to stop: the signal that is sent, and the seconds before SIGKILL."""

    process: psutil.Process
    stop_signal: int
    timeout_seconds: float


def stop(targets: Sequence[StopTarget]) -> None:
    """Send every target its stop signal, wait for each up to its own timeout, then kill what is left of their trees."""
    trees = [with_descendants(target.process) for target in targets]
    for target, members in zip(targets, trees, strict=True):
        with suppress(psutil.NoSuchProcess):
            target.process.send_signal(target.stop_signal)
        thaw(members)  # a frozen process does not handle the signal
    signalled_at = time.monotonic()
    for target in targets:
        _wait([target.process], signalled_at + target.timeout_seconds)
    for members in trees:
        kill(members)


def with_descendants(leader: psutil.Process) -> list[psutil.Process]:
    """Return a process and its descendants. PostgreSQL's children leave its process group: the group is not enough."""
    with suppress(psutil.NoSuchProcess):
        return [leader, *leader.children(recursive=True)]
    return [leader]


def freeze(leader: psutil.Process) -> None:
    """Suspend a process and its descendants (SIGSTOP). The leader comes first, so that it starts no more children."""
    with suppress(psutil.NoSuchProcess):
        leader.suspend()
    for member in with_descendants(leader):
        with suppress(psutil.NoSuchProcess):
            member.suspend()


def thaw(members: Sequence[psutil.Process]) -> None:
    """Resume frozen processes (SIGCONT); no effect on running ones."""
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.resume()


def kill(members: Sequence[psutil.Process]) -> None:
    """Kill the group of the first process and each of the others with SIGKILL, and wait until they have exited."""
    with suppress(ProcessLookupError, PermissionError):  # macOS raises PermissionError for a group of zombies
        os.killpg(members[0].pid, SIGKILL)
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    _wait(members, time.monotonic() + KILL_TIMEOUT_SECONDS)


def has_exited(process: psutil.Process) -> bool:
    """Return whether a process has exited; unlike psutil's wait, leave its exit status for its parent to collect."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE) or not process.is_running()
    except psutil.NoSuchProcess:
        return True


def _wait(processes: Sequence[psutil.Process], deadline: float) -> None:
    while not all(map(has_exited, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
