"""Keep one process running: a thread waits for its exit and restarts it with a growing delay."""

import threading
import time
from collections.abc import Callable

import psutil

from stack import process_tree
from stack.errors import Aborted, StackError
from stack.launcher import ChildProcess, Launcher
from stack.process_spec import ProcessSpec

FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 10.0
STABLE_SECONDS = 60.0
_POLL_SECONDS = 0.02


def restart_delay(previous_seconds: float, lived_seconds: float) -> float:
    """Return the seconds before the next restart: doubled each time, reset once the process lived a minute."""
    if previous_seconds == 0 or lived_seconds >= STABLE_SECONDS:
        return FIRST_DELAY_SECONDS
    return min(previous_seconds * 2, MAX_DELAY_SECONDS)


class Restarter:
    """One process that is restarted whenever it exits. Only one thread at a time may call start and stop."""

    def __init__(self, spec: ProcessSpec, stage: int, launcher: Launcher, report: Callable[[str], None]) -> None:
        self.spec = spec
        self._stage = stage
        self._launcher = launcher
        self._report = report
        self._child: ChildProcess | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._up = threading.Event()
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The process id, which is also its group id; raises StackError while the process is not running."""
        child = self._child
        if child is None or not child.alive:
            raise StackError(f"{self.spec.name} is not running")
        return child.popen.pid

    def start(self) -> None:
        """Start the process and wait until it is healthy; raises CannotStart, or Aborted if the stack is stopped."""
        if self._thread:
            raise StackError(f"{self.spec.name} is already running")
        self._stopping.clear()
        started_at = time.monotonic()
        try:
            child = self._spawn()
            self._wait_healthy(child, "ready", started_at)
        except StackError:
            self.stop()
            raise
        self._thread = threading.Thread(
            target=self._restart_on_exit, args=(child,), name=f"restart {self.spec.name}", daemon=True
        )
        self._thread.start()

    def disable(self) -> ChildProcess | None:
        """Prevent any further restart; return the process that the caller still has to stop."""
        with self._lock:
            self._stopping.set()
            self._up.clear()
            return self._child

    def join(self) -> None:
        """Wait for the thread to end, after the process was stopped."""
        if self._thread:
            self._thread.join()
        self._child = self._thread = None

    def stop(self) -> None:
        """Stop the process and its descendants."""
        child = self.disable()
        if child:
            self._launcher.stop([child])
        self.join()

    def kill(self) -> None:
        """Kill the process and its descendants with SIGKILL; it is restarted."""
        with self._lock:
            self._up.clear()
            child = self._child
        if child:
            process_tree.kill(process_tree.with_descendants(child.target.process))

    def crash(self) -> None:
        """Kill the process and its descendants with SIGKILL; it is not restarted until `start`."""
        child = self.disable()
        if child:
            process_tree.kill(process_tree.with_descendants(child.target.process))
            self._launcher.stop([child])
        self.join()

    def freeze(self) -> None:
        """Suspend the process and its descendants (SIGSTOP); raises StackError while it is not running."""
        process_tree.freeze(psutil.Process(self.pid))

    def thaw(self) -> None:
        """Resume a frozen process (SIGCONT); raises StackError while it is not running."""
        process_tree.thaw(process_tree.with_descendants(psutil.Process(self.pid)))

    def wait_up(self, timeout_seconds: float) -> None:
        """Wait until the process is healthy; raises StackError after the timeout.

        A process that has just ended counts as ended, also before the thread that restarts it has seen its exit.
        """
        deadline = time.monotonic() + timeout_seconds
        while not (self._up.is_set() and (child := self._child) and child.alive):
            if time.monotonic() > deadline:
                raise StackError(f"{self.spec.name} was not healthy within {timeout_seconds:.0f} s")
            time.sleep(_POLL_SECONDS)

    def _spawn(self) -> ChildProcess:
        self.spec.prepare(lambda argv: self._launcher.run(self.spec, argv, self._stage))
        with self._lock:
            if self._stopping.is_set():
                raise Aborted(f"the stack was stopped before {self.spec.name} was started")
            self._child = self._launcher.spawn(self.spec, self.spec.argv, self._stage)
            return self._child

    def _wait_healthy(self, child: ChildProcess, state: str, started_at: float) -> None:
        self._launcher.wait_healthy(self.spec, child)
        self._report(f"{self.spec.name:<9} {state} after {time.monotonic() - started_at:.1f} s")
        with self._lock:
            if child.alive:
                self._up.set()

    def _restart_on_exit(self, child: ChildProcess) -> None:
        delay = 0.0
        while True:
            started_at = time.monotonic()
            status = child.popen.wait()
            if self._stopping.is_set():
                return
            self._stop_descendants()
            delay = restart_delay(delay, time.monotonic() - started_at)
            self._report(f"{self.spec.name:<9} exited with status {status}; restarting in {delay:g} s")
            if self._stopping.wait(delay):
                return
            child = self._restart() or child

    def _stop_descendants(self) -> None:
        """Stop what an exited process has left running, at once and only once: its pid may be reused later."""
        with self._lock:
            self._up.clear()
            child, self._child = self._child, None
        if child:
            self._launcher.stop([child])

    def _restart(self) -> ChildProcess | None:
        """Start the process again; return None and report the reason if it does not become healthy."""
        started_at = time.monotonic()
        try:
            child = self._spawn()
            self._wait_healthy(child, "is back", started_at)
        except (StackError, OSError) as error:
            if not self._stopping.is_set():
                self._report(str(error))
                self._stop_descendants()
            return None
        return child
