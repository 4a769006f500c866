"""The reaper: a small process that stops the stack's processes after the supervisor has died in any way.

The supervisor holds a pipe to the reaper, through which every process registers. End of file on that pipe means that
the supervisor is gone; no signal handler could report that after a kill -9. Linux's parent-death signal would also
stop the children, but in no order, and only on Linux.
"""

import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import psutil

from stack.process_tree import StopTarget, stop
from stack.server_env import ROOT


class Reaper:
    """The supervisor's handle of the reaper process."""

    def __init__(self, env_file: Path, log: IO[bytes], lock: int) -> None:
        """Start the reaper.

        `env_file` is deleted once all processes have ended. Until then the reaper keeps the file descriptor `lock`
        open, and with it the directory locked.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stack.reaper", str(env_file)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            pass_fds=[lock],
            start_new_session=True,
        )

    @property
    def pipe(self) -> IO[bytes]:
        """The pipe to which a started process writes its registration."""
        assert self._process.stdin is not None
        return self._process.stdin

    def unregister(self, pid: int) -> None:
        """Report that this process has ended."""
        with suppress(BrokenPipeError):  # the reaper itself was killed
            self.pipe.write(f"- {pid}\n".encode())
            self.pipe.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the pipe and wait until the reaper has stopped what is left."""
        with suppress(BrokenPipeError):
            self.pipe.close()
        self._process.wait()


def registration(stage: int, stop_signal: int, timeout_seconds: float) -> str:
    """Return what follows `+ <pid>` in a process's line: its stage, stop signal and seconds before SIGKILL."""
    return f"{stage} {int(stop_signal)} {timeout_seconds}"


def read_registrations(lines: Iterable[str]) -> dict[int, tuple[int, StopTarget]]:
    """Read the pipe to its end; return pid -> (stage, target) of the registered processes that are still alive."""
    registered: dict[int, tuple[int, StopTarget]] = {}
    for line in lines:
        sign, pid_text, *details = line.split()
        pid = int(pid_text)
        registered.pop(pid, None)
        if sign == "+":
            stage, stop_signal, timeout_seconds = details
            with suppress(psutil.NoSuchProcess):
                target = StopTarget(psutil.Process(pid), int(stop_signal), float(timeout_seconds))
                registered[pid] = int(stage), target
    return registered


def main(env_file: Path) -> None:
    """Wait until the supervisor is gone, then stop what is still alive, the highest stage first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    alive = read_registrations(sys.stdin).values()
    for stage in sorted({stage for stage, _ in alive}, reverse=True):
        stop([target for target_stage, target in alive if target_stage == stage])
    env_file.unlink(missing_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
