"""Starting processes: each in a session of its own, with a log file, known to the guard before it runs a line."""

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from stack import logs, tree
from stack.errors import Aborted, CannotStart
from stack.guard import Guard, announcement
from stack.part import Part

POLL_SECONDS = 0.05

# The shell tells the guard its pid and then becomes the part itself: were the supervisor to tell, its death
# between starting and telling would leave a process that nobody knows.
ANNOUNCE_AND_BECOME = 'echo "+ $$ $0"; exec "$@" >&2'


@dataclass(frozen=True)
class Child:
    """A started process of a part, alive or not."""

    popen: subprocess.Popen[bytes]
    target: tree.Target

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.popen.poll() is None


class Launcher:
    """Starts and ends processes for one stack; setting `abort` ends every wait early."""

    def __init__(self, log_directory: Path, guard: Guard) -> None:
        self._log_directory = log_directory
        self._guard = guard
        self.abort = threading.Event()

    def log(self, name: str) -> Path:
        """The file with everything that a part wrote."""
        return self._log_directory / f"{name}.log"

    def spawn(self, part: Part, argv: Sequence[str], stage: int) -> Child:
        """Starts one command of a part; the guard stops higher stages first."""
        told = announcement(stage, part.stop_signal, part.stop_timeout_seconds)
        with self.log(part.name).open("ab", buffering=0) as log:
            log.write(logs.heading())
            popen = subprocess.Popen(
                ["/bin/sh", "-c", ANNOUNCE_AND_BECOME, told, *argv],
                stdin=subprocess.DEVNULL,
                stdout=self._guard.pipe,
                stderr=log,
                env=dict(part.env),
                cwd=part.cwd,
                start_new_session=True,
            )
        return Child(popen, tree.Target(psutil.Process(popen.pid), part.stop_signal, part.stop_timeout_seconds))

    def run(self, part: Part, argv: Sequence[str], stage: int) -> None:
        """Runs one command of a part to its end; raises CannotStart unless it exits with 0, Aborted if told to stop."""
        child = self.spawn(part, argv, stage)
        try:
            while child.alive:
                self._pause(part)
        finally:
            self.end([child])
        if child.popen.returncode:
            raise self.complaint(part, f"exited with status {child.popen.returncode}")

    def await_health(self, part: Part, child: Child) -> None:
        """Asks a part until it is healthy; raises CannotStart if it ends or is too slow, Aborted if told to stop."""
        deadline = time.monotonic() + part.start_timeout_seconds
        while not part.healthy():
            if not child.alive:
                raise self.complaint(part, f"exited with status {child.popen.returncode} before it was ready")
            if time.monotonic() > deadline:
                raise self.complaint(part, f"was not ready within {part.start_timeout_seconds:.0f} s")
            self._pause(part)

    def end(self, children: Sequence[Child]) -> None:
        """Stops these and all they started, together, and has the guard forget them."""
        tree.stop([child.target for child in children])
        for child in children:
            child.popen.wait()
            self._guard.forget(child.popen.pid)

    def complaint(self, part: Part, what: str) -> CannotStart:
        """An error that says what became of a part and quotes its log."""
        return CannotStart(f"{part.name} {what}; {logs.tail(self.log(part.name))}")

    def _pause(self, part: Part) -> None:
        if self.abort.wait(POLL_SECONDS):
            raise Aborted(f"told to stop while {part.name} was starting")
