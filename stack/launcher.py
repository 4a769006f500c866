"""Start and stop single processes, each in its own session, with a log file and registered with the reaper."""

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from stack import logs, process_tree
from stack.errors import Aborted, CannotStart
from stack.process_spec import ProcessSpec
from stack.reaper import Reaper, registration

POLL_SECONDS = 0.05

# The shell writes its own pid to the reaper's pipe and then execs the process. If the supervisor registered the pid
# instead, its death between the start and the registration would leave a process that the reaper never stops.
REGISTER_AND_EXEC = 'echo "+ $$ $0"; exec "$@" >&2'


@dataclass(frozen=True)
class ChildProcess:
    """A started process, alive or not."""

    popen: subprocess.Popen[bytes]
    target: process_tree.StopTarget

    @property
    def alive(self) -> bool:
        """Whether it is running; one that has exited is not, whether or not its status was read (a zombie)."""
        # poll() alone sees no exit while another thread waits for it
        return self.popen.poll() is None and not process_tree.has_exited(self.target.process)


class Launcher:
    """Starts and stops the processes of one stack; setting `abort` ends every wait for a start."""

    def __init__(self, log_directory: Path, reaper: Reaper) -> None:
        self._log_directory = log_directory
        self._reaper = reaper
        self.abort = threading.Event()

    def spawn(self, spec: ProcessSpec, argv: Sequence[str], stage: int) -> ChildProcess:
        """Start one command of a process. The reaper stops higher stages first."""
        details = registration(stage, spec.stop_signal, spec.stop_timeout_seconds)
        with self._log(spec).open("ab", buffering=0) as log:
            log.write(logs.start_marker())
            popen = subprocess.Popen(
                ["/bin/sh", "-c", REGISTER_AND_EXEC, details, *argv],
                stdin=subprocess.DEVNULL,
                stdout=self._reaper.pipe,
                stderr=log,
                env=dict(spec.env),
                cwd=spec.cwd,
                start_new_session=True,
                umask=0o077,  # what a process creates, only its user can read
            )
        target = process_tree.StopTarget(psutil.Process(popen.pid), spec.stop_signal, spec.stop_timeout_seconds)
        return ChildProcess(popen, target)

    def run(self, spec: ProcessSpec, argv: Sequence[str], stage: int) -> None:
        """Run one command of a process to its end; raises CannotStart unless it exits with 0, Aborted on a stop."""
        child = self.spawn(spec, argv, stage)
        try:
            while child.alive:
                self._pause(spec)
        finally:
            self.stop([child])
        if status := child.popen.wait():
            raise self._start_error(spec, f"exited with status {status}")

    def wait_healthy(self, spec: ProcessSpec, child: ChildProcess) -> None:
        """Poll the health check until it passes; raises CannotStart on an exit or timeout, Aborted on a stop."""
        deadline = time.monotonic() + spec.start_timeout_seconds
        while not spec.healthy():
            if not child.alive:
                raise self._start_error(spec, f"exited with status {child.popen.wait()} before it was ready")
            if time.monotonic() > deadline:
                raise self._start_error(spec, f"was not ready within {spec.start_timeout_seconds:.0f} s")
            self._pause(spec)

    def stop(self, children: Sequence[ChildProcess]) -> None:
        """Stop these processes and their descendants at the same time, and unregister them from the reaper."""
        process_tree.stop([child.target for child in children])
        for child in children:
            child.popen.wait()
            self._reaper.unregister(child.popen.pid)

    def _log(self, spec: ProcessSpec) -> Path:
        return self._log_directory / f"{spec.name}.log"

    def _start_error(self, spec: ProcessSpec, what: str) -> CannotStart:
        return CannotStart(f"{spec.name} {what}; {logs.tail(self._log(spec))}")

    def _pause(self, spec: ProcessSpec) -> None:
        if self.abort.wait(POLL_SECONDS):
            raise Aborted(f"the stack was stopped while {spec.name} was starting")
