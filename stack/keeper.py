"""Keeping one part running: a thread that waits for its end and starts it again, until told to let go."""

import threading
import time
from collections.abc import Callable

import psutil

from stack import tree
from stack.errors import Aborted, StackError
from stack.launch import Child, Launcher
from stack.part import Part

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 10.0
SETTLED_SECONDS = 60.0


def next_delay(previous_seconds: float, lived_seconds: float) -> float:
    """Seconds to wait before a dead part is started again: doubling, from the start again once it lived a minute."""
    if previous_seconds == 0 or lived_seconds >= SETTLED_SECONDS:
        return FIRST_DELAY_SECONDS
    return min(previous_seconds * 2, LONGEST_DELAY_SECONDS)


class Keeper:
    """One part that is kept running; start and stop are called by one thread at a time."""

    def __init__(self, part: Part, stage: int, launcher: Launcher, say: Callable[[str], None]) -> None:
        self.part = part
        self._stage = stage
        self._launcher = launcher
        self._say = say
        self._child: Child | None = None
        self._thread: threading.Thread | None = None
        self._let_go = threading.Event()
        self._up = threading.Event()
        self._lock = threading.Lock()

    @property
    def pid(self) -> int:
        """The process id, also its group's; raises StackError while the part is not running."""
        child = self._child
        if child is None or not child.alive:
            raise StackError(f"{self.part.name} is not running")
        return child.popen.pid

    def start(self) -> None:
        """Starts the part and waits for its health; raises CannotStart, or Aborted when told to stop meanwhile."""
        if self._thread:
            raise StackError(f"{self.part.name} runs already")
        self._let_go.clear()
        began = time.monotonic()
        try:
            child = self._spawn()
            self._await_up(child, "ready", began)
        except StackError:
            self.stop()
            raise
        self._thread = threading.Thread(target=self._keep, args=(child,), name=f"keep {self.part.name}", daemon=True)
        self._thread.start()

    def let_go(self) -> Child | None:
        """Starts it no more; returns what still has to be ended."""
        with self._lock:
            self._let_go.set()
            self._up.clear()
            return self._child

    def join(self) -> None:
        """Waits for the thread, after the process was ended."""
        if self._thread:
            self._thread.join()
        self._child = self._thread = None

    def stop(self) -> None:
        """Ends the part and all it started."""
        child = self.let_go()
        if child:
            self._launcher.end([child])
        self.join()

    def kill(self) -> None:
        """Kills the part and all it started without a warning; it is started again."""
        with self._lock:
            self._up.clear()
            child = self._child
        if child:
            tree.kill(tree.family(child.target.process))

    def crash(self) -> None:
        """Kills the part and all it started without a warning; it stays away until it is started."""
        child = self.let_go()
        if child:
            tree.kill(tree.family(child.target.process))
            self._launcher.end([child])
        self.join()

    def freeze(self) -> None:
        """Stops the part and all it started from running; raises StackError while the part is not running."""
        tree.freeze(psutil.Process(self.pid))

    def thaw(self) -> None:
        """Lets a frozen part run on; raises StackError while the part is not running."""
        tree.thaw(tree.family(psutil.Process(self.pid)))

    def wait_up(self, timeout_seconds: float) -> None:
        """Waits until the part is healthy (again); raises StackError after the timeout."""
        if not self._up.wait(timeout_seconds):
            raise StackError(f"{self.part.name} was not back within {timeout_seconds:.0f} s")

    def _spawn(self) -> Child:
        self.part.prepare(lambda argv: self._launcher.run(self.part, argv, self._stage))
        with self._lock:
            if self._let_go.is_set():
                raise Aborted(f"told to stop before {self.part.name} was started")
            self._child = self._launcher.spawn(self.part, self.part.argv, self._stage)
            return self._child

    def _await_up(self, child: Child, word: str, began: float) -> None:
        self._launcher.await_health(self.part, child)
        self._say(f"{self.part.name:<9} {word} after {time.monotonic() - began:.1f} s")
        with self._lock:
            if child.alive:
                self._up.set()

    def _keep(self, child: Child) -> None:
        delay = 0.0
        while True:
            began = time.monotonic()
            status = child.popen.wait()
            if self._let_go.is_set():
                return
            self._clear_away()
            delay = next_delay(delay, time.monotonic() - began)
            self._say(f"{self.part.name:<9} ended with status {status}; starting it again in {delay:g} s")
            if self._let_go.wait(delay):
                return
            child = self._revived() or child

    def _clear_away(self) -> None:
        """Ends what a dead part left, at once and once: later its pid might be somebody else's."""
        with self._lock:
            self._up.clear()
            child, self._child = self._child, None
        if child:
            self._launcher.end([child])

    def _revived(self) -> Child | None:
        began = time.monotonic()
        try:
            child = self._spawn()
            self._await_up(child, "is back", began)
        except (StackError, OSError) as error:
            if not self._let_go.is_set():
                self._say(str(error))
                self._clear_away()
            return None
        return child
