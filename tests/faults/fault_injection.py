"""Kill, freeze, stop and restart parts of the stack; each method checks that the fault really occurred."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import kill
from pathlib import Path

import psutil

from service.crash_points import CrashPoint
from stack.errors import StackError
from stack.local import LocalStack
from tests.faults.invariants import Invariant, InvariantChecker
from tests.waiting import eventually

#: the part that ends when a point (or its prefix) kills a process; other points kill a child of the Celery worker,
#: and the worker itself lives on
_KILLED_BY_POINT = {
    **dict.fromkeys(
        ("api", "change", "standby", "replay", "discard", CrashPoint.GATE_FILLING, CrashPoint.GATE_FILLED), "api"
    ),
    **dict.fromkeys(("issuer", CrashPoint.DEAD_LETTERS_STORED, CrashPoint.DEAD_LETTERS_CONFIRMED), "issuer"),
}
#: The Celery worker may exit, and must be restarted, when its broker exits or refuses a write while tasks are
#: unacknowledged: kombu raises an error of its own. The worker's database rows bring the work back.
_MAY_RESTART_TOO = {"valkey": {"worker"}}
_REACHED_SECONDS = 30.0
_ENDED_SECONDS = 20.0


class FaultInjector:
    """Break parts of the running stack, and record which parts may restart because of that."""

    def __init__(self, stack: LocalStack, checker: InvariantChecker) -> None:
        self.may_restart: set[str] = set()
        self._stack = stack
        self._checker = checker
        self._crash_points = Path(stack.environment["CRASH_POINTS"])

    def kill(self, name: str) -> None:
        """Send SIGKILL to a part and all its children; the supervisor restarts it."""
        process = self._process_to_end(name)
        self._stack.kill(name)
        self.confirm(not _is_running(process), f"{name} is killed")

    def crash(self, name: str) -> None:
        """Send SIGKILL to a part and all its children; it stays down until `start`."""
        process = self._process_to_end(name)
        self._stack.crash(name)
        self.confirm(not _is_running(process), f"{name} is killed")

    def stop(self, name: str) -> None:
        """Shut a part down in order; it stays down until `start`."""
        process = self._process_to_end(name)
        self._stack.stop(name)
        self.confirm(not _is_running(process), f"{name} is stopped")

    def start(self, name: str) -> None:
        """Start a part that was crashed or stopped, and wait until it is healthy."""
        self._stack.start(name)

    def process(self, name: str) -> psutil.Process:
        """Return a part's running process, for `wait_ended`."""
        return psutil.Process(self._stack.pid(name))

    def terminate(self, name: str, signal_number: int = signal.SIGTERM) -> psutil.Process:
        """Send a signal that ends the part, without waiting; return the process that got it.

        The supervisor restarts the part once the process has ended.
        """
        process = self._process_to_end(name)
        kill(process.pid, signal_number)
        return process

    @contextmanager
    def unavailable(self, name: str) -> Iterator[None]:
        """Crash a part, and start it again at the end of the block."""
        self.crash(name)
        try:
            yield
        finally:
            self.start(name)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Send SIGSTOP to a part and all its children, and SIGCONT at the end of the block."""
        self._stack.freeze(name)
        try:
            self.confirm(eventually(lambda: self._status(name) == psutil.STATUS_STOPPED), f"{name} is frozen")
            yield
        finally:
            with suppress(StackError):  # the part may have been killed in the meantime
                self._stack.thaw(name)

    def arm(self, point: CrashPoint, how: str = "kill") -> Path:
        """Make the next process that reaches the point kill or stop itself there.

        Return the file that arms the point; the process deletes it when it reaches the point.
        """
        armed = self._crash_points / f"{point}.{how}"
        armed.touch()
        return armed

    @contextmanager
    def clocks_shifted(self, by_ms: int) -> Iterator[None]:
        """Shift the clocks of all our processes during the block; Kafka, PostgreSQL and Valkey keep the right time."""
        clock = self._crash_points / "clock"
        clock.write_text(str(by_ms))
        yield
        clock.unlink()

    def wait_reached(self, armed: Path, within_seconds: float = _REACHED_SECONDS) -> None:
        """Wait until a process has reached the armed point."""
        eventually(lambda: not armed.exists(), within_seconds=within_seconds)
        self.confirm(not armed.exists(), armed.name)
        self._allow_restart_by(armed)

    def disarm(self, armed: Path) -> None:
        """Disarm a point, whether or not a process has reached it."""
        if not armed.exists():
            self._allow_restart_by(armed)
        armed.unlink(missing_ok=True)

    def crash_at(self, point: CrashPoint, how: str = "kill") -> None:
        """Kill or stop the next process that reaches the point, and wait for it."""
        self.wait_reached(self.arm(point, how))

    def find_frozen(self, *names: str) -> str:
        """Wait until one of these parts is frozen; return its name."""
        return eventually(lambda: next((name for name in names if self._status(name) == psutil.STATUS_STOPPED), None))

    def find_with_frozen_child(self, *names: str) -> str:
        """Wait until a child of one of these parts is frozen; return the part's name."""
        return eventually(lambda: next(filter(self._has_frozen_child, names), None))

    def wait_ended(self, process: psutil.Process) -> None:
        """Wait until a process that was terminated, or that kills itself at an armed point, has ended."""
        eventually(lambda: not _is_running(process), within_seconds=_ENDED_SECONDS)

    def confirm(self, occurred: object, what: object) -> None:
        """Fail the row if its fault did not occur: such a row proves nothing."""
        self._checker.check(Invariant.FAULT_OCCURRED, occurred, what)

    def allow_restart(self, name: str) -> None:
        """Accept that this part restarts, and the parts that cannot survive its failure."""
        self.may_restart |= {name} | _MAY_RESTART_TOO.get(name, set())

    def undo_all(self) -> None:
        """Disarm all points, and wait until every part runs and is not frozen."""
        for armed in self._crash_points.iterdir():
            armed.unlink()
        for name in self._stack.names:
            self._stack.wait_up(name)
            self._stack.thaw(name)

    def _allow_restart_by(self, armed: Path) -> None:
        point = armed.stem
        name = _KILLED_BY_POINT.get(point) or _KILLED_BY_POINT.get(point.partition(".")[0])
        if armed.suffix == ".kill" and name:
            self.may_restart.add(name)

    def _status(self, name: str) -> str:
        return str(self.process(name).status())

    def _has_frozen_child(self, name: str) -> bool:
        children = self.process(name).children(recursive=True)
        return any(child.status() == psutil.STATUS_STOPPED for child in children)

    def _process_to_end(self, name: str) -> psutil.Process:
        self.allow_restart(name)
        return self.process(name)


def _is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
