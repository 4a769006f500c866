"""The hands that break things: each checks that what it does has happened."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import kill
from pathlib import Path

import psutil

from service.crash_points import CrashPoint
from stack.errors import StackError
from stack.local import LocalStack
from tests.faults.ledger import Invariant, Ledger
from tests.waiting import eventually

#: who reaches a crash point; a child of the worker ends alone
_REACHED_BY = {
    **dict.fromkeys(
        ("api", "change", "standby", "replay", "discard", CrashPoint.GATE_FILLING, CrashPoint.GATE_FILLED), "api"
    ),
    **dict.fromkeys(("issuer", CrashPoint.DEAD_LETTERS_STORED, CrashPoint.DEAD_LETTERS_CONFIRMED), "issuer"),
}
#: Celery's worker ends, to be started anew, when its broker dies or refuses a write while tasks are unacknowledged:
#: kombu runs into an error of its own. Its rows bring the work back.
_MAY_END_WITH = {"valkey": {"worker"}}
_REACHED_SECONDS = 30.0
_ENDED_SECONDS = 20.0


class Hands:
    """What a row does to the running parts, and whom it ended."""

    def __init__(self, stack: LocalStack, ledger: Ledger) -> None:
        self.victims: set[str] = set()
        self._stack = stack
        self._ledger = ledger
        self._points = Path(stack.environment["CRASH_POINTS"])

    def kill(self, name: str) -> None:
        """SIGKILL to a part and all it started; the supervisor starts it again."""
        process = self._victim(name)
        self._stack.kill(name)
        self.bitten(not _runs(process), f"{name} is killed")

    def crash(self, name: str) -> None:
        """SIGKILL to a part and all it started; it stays away until `start`."""
        process = self._victim(name)
        self._stack.crash(name)
        self.bitten(not _runs(process), f"{name} is killed")

    def stop(self, name: str) -> None:
        """An orderly shutdown; the part stays away until `start`."""
        process = self._victim(name)
        self._stack.stop(name)
        self.bitten(not _runs(process), f"{name} is stopped")

    def start(self, name: str) -> None:
        """Brings back what was crashed or stopped, and waits for its health."""
        self._stack.start(name)

    def terminate(self, name: str, how: int = signal.SIGTERM) -> psutil.Process:
        """SIGTERM, and nobody waits; the supervisor starts the part again once it has ended. Gives what was told."""
        process = self._victim(name)
        kill(process.pid, how)
        return process

    @contextmanager
    def away(self, name: str) -> Iterator[None]:
        """The part is killed, and started again at the end of the block."""
        self.crash(name)
        try:
            yield
        finally:
            self.start(name)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP to a part and all it started, SIGCONT at the end of the block."""
        self._stack.freeze(name)
        try:
            self.bitten(eventually(lambda: self._status(name) == psutil.STATUS_STOPPED), f"{name} is frozen")
            yield
        finally:
            with suppress(StackError):  # it may have been killed since
                self._stack.thaw(name)

    def arm(self, point: CrashPoint, how: str = "kill") -> Path:
        """The next process that reaches the point kills or stops itself there; the file is gone when it did."""
        armed = self._points / f"{point}.{how}"
        armed.touch()
        return armed

    @contextmanager
    def clocks_jump(self, by_ms: int) -> Iterator[None]:
        """The clocks of all our processes are so far off while the block lasts; those of the parts are right."""
        clock = self._points / "clock"
        clock.write_text(str(by_ms))
        yield
        clock.unlink()

    def reached(self, armed: Path, within_seconds: float = _REACHED_SECONDS) -> None:
        """Waits until a process was killed or stopped at the point."""
        eventually(lambda: not armed.exists(), within_seconds=within_seconds)
        self.bitten(not armed.exists(), armed.name)
        self._blame(armed)

    def disarm(self, armed: Path) -> None:
        """Takes back what nobody may have reached."""
        if not armed.exists():
            self._blame(armed)
        armed.unlink(missing_ok=True)

    def _blame(self, armed: Path) -> None:
        point = armed.stem
        if armed.suffix == ".kill" and (name := _REACHED_BY.get(point) or _REACHED_BY.get(point.partition(".")[0])):
            self.victims.add(name)

    def crash_at(self, point: CrashPoint, how: str = "kill") -> None:
        """A process is killed, or stopped, at the point."""
        self.reached(self.arm(point, how))

    def who_is_frozen(self, *names: str) -> str:
        """The one of these parts that is frozen; fails when there is none."""
        return eventually(lambda: next((name for name in names if self._status(name) == psutil.STATUS_STOPPED), None))

    def whose_child_is_frozen(self, *names: str) -> str:
        """The one of these parts of which a child is frozen; fails when there is none."""
        return eventually(lambda: next(filter(self._has_frozen_child, names), None))

    def gone(self, process: psutil.Process) -> None:
        """Waits until a process that was told to end has ended."""
        eventually(lambda: not _runs(process), within_seconds=_ENDED_SECONDS)

    def bitten(self, felt: object, what: object) -> None:
        """The fault happened, or the row shows nothing."""
        self._ledger.check(Invariant.BITTEN, felt, what)

    def heal(self) -> None:
        """Undoes what a row left behind: points are disarmed, everybody thawed and running."""
        for armed in self._points.iterdir():
            armed.unlink()
        for name in self._stack.names:
            self._stack.wait_up(name)
            self._stack.thaw(name)

    def _status(self, name: str) -> str:
        return str(psutil.Process(self._stack.pid(name)).status())

    def _has_frozen_child(self, name: str) -> bool:
        children = psutil.Process(self._stack.pid(name)).children(recursive=True)
        return any(child.status() == psutil.STATUS_STOPPED for child in children)

    def breaks(self, name: str) -> None:
        """What a row does to this part may end it, or those who cannot outlive it."""
        self.victims |= {name} | _MAY_END_WITH.get(name, set())

    def _victim(self, name: str) -> psutil.Process:
        self.breaks(name)
        return psutil.Process(self._stack.pid(name))


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
