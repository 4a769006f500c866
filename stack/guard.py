"""The guard: a tiny process that ends the parts when the supervisor is gone, however it went.

It reads which processes live from a pipe. The pipe's end of file is the supervisor's death, which no signal handler
could tell of after a kill -9. (Linux's parent-death signal would end the children, but in no order, and only there.)
"""

import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import psutil

from stack.tree import Target, stop

ROOT = Path(__file__).parents[1]
Registry = dict[int, tuple[int, Target]]


class Guard:
    """The supervisor's end of the pipe."""

    def __init__(self, leftover: Path, log: IO[bytes], inherited: int) -> None:
        """Starts the guard; it deletes `leftover`, and holds the descriptor `inherited` open until all is ended."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stack.guard", str(leftover)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            pass_fds=[inherited],
            start_new_session=True,
        )

    @property
    def pipe(self) -> IO[bytes]:
        """Where a started process announces itself."""
        assert self._process.stdin is not None
        return self._process.stdin

    def forget(self, pid: int) -> None:
        """Tells the guard that this process has ended."""
        with suppress(BrokenPipeError):  # a guard that was killed has nothing to forget
            self.pipe.write(f"- {pid}\n".encode())
            self.pipe.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Closes the pipe and waits for the guard to end what is left, if anything."""
        with suppress(BrokenPipeError):
            self.pipe.close()
        self._process.wait()


def announcement(stage: int, stop_signal: int, timeout_seconds: float) -> str:
    """What a process says of itself after `+` and its pid."""
    return f"{stage} {int(stop_signal)} {timeout_seconds}"


def read(lines: Iterable[str]) -> Registry:
    """Follows the announcements until the pipe ends; returns pid → (stage, target) of those that still live."""
    living: Registry = {}
    for line in lines:
        sign, pid, *rest = line.split()
        living.pop(int(pid), None)
        if sign == "+":
            with suppress(psutil.NoSuchProcess):
                living[int(pid)] = _parsed(int(pid), rest)
    return living


def _parsed(pid: int, rest: list[str]) -> tuple[int, Target]:
    stage, stop_signal, timeout_seconds = rest
    return int(stage), Target(psutil.Process(pid), int(stop_signal), float(timeout_seconds))


def main(leftover: Path) -> None:
    """Waits for the supervisor's end, then stops what lives, the last stage first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    living = read(sys.stdin)
    for stage in sorted({stage for stage, _ in living.values()}, reverse=True):
        stop([target for at, target in living.values() if at == stage])
    leftover.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
