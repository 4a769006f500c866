"""Ending processes with everything they started."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from signal import SIGKILL

import psutil

KILLED_WITHIN_SECONDS = 5.0
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Target:
    """A group leader to be ended: the signal that asks it, and the seconds it has before it is killed."""

    process: psutil.Process
    stop_signal: int
    timeout_seconds: float


def stop(targets: Sequence[Target]) -> None:
    """Asks all to end, waits for each within its own bound, and kills whatever is left of their trees."""
    families = [family(target.process) for target in targets]
    for target, members in zip(targets, families, strict=True):
        _ask(target)
        thaw(members)  # what is frozen would not hear that it shall end
    asked_at = time.monotonic()
    for target in targets:
        _wait([target.process], asked_at + target.timeout_seconds)
    for members in families:
        kill(members)


def family(leader: psutil.Process) -> list[psutil.Process]:
    """The leader and all that it started; PostgreSQL's children leave its group, so the group alone is not enough."""
    with suppress(psutil.NoSuchProcess):
        return [leader, *leader.children(recursive=True)]
    return [leader]


def freeze(leader: psutil.Process) -> None:
    """Stops a leader and all that it started from running, the leader first: it starts no more of them."""
    with suppress(psutil.NoSuchProcess):
        leader.suspend()
    for member in family(leader):
        with suppress(psutil.NoSuchProcess):
            member.suspend()


def thaw(members: Sequence[psutil.Process]) -> None:
    """Lets frozen processes run on; does nothing to others."""
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.resume()


def kill(members: Sequence[psutil.Process]) -> None:
    """Kills a leader's group and the rest of its family, and waits until they are gone."""
    with suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS says so of a group of zombies
        os.killpg(members[0].pid, SIGKILL)
    for member in members:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    _wait(members, time.monotonic() + KILLED_WITHIN_SECONDS)


def gone(process: psutil.Process) -> bool:
    """Whether it runs no more; psutil's own wait would collect the status that its starter still wants."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE) or not process.is_running()
    except psutil.NoSuchProcess:
        return True


def _wait(processes: Sequence[psutil.Process], deadline: float) -> None:
    while not all(map(gone, processes)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _ask(target: Target) -> None:
    with suppress(psutil.NoSuchProcess):
        target.process.send_signal(target.stop_signal)
