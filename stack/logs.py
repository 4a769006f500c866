"""Log files of the stack: the supervisor's own, and one for each process with a marker at every start."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from service.log import escape

TAIL_LINES = 12
START_MARKER = "--- started "


class SupervisorLog:
    """The supervisor's log file; each line is also passed to `on_message`."""

    def __init__(self, path: Path, on_message: Callable[[str], object] | None) -> None:
        self.file = path.open("ab", buffering=0)
        self._on_message = on_message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.file.close()

    def write(self, line: str) -> None:
        """Append a line with the time, and pass it to `on_message`; on a full disk the file lacks lines."""
        with suppress(OSError):
            self.file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n".encode())
        if self._on_message:
            self._on_message(line)


def start_marker() -> bytes:
    """Return the line that separates one start of a process from the next."""
    return f"{START_MARKER}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode()


def rotate(log: Path) -> None:
    """Rename the previous run's log to `.log.1`. Only one old log is kept, so that logs do not grow without bound."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))


def since_start(log: Path) -> str:
    """Return what a process has written since its last start."""
    return log.read_text(errors="replace").rpartition(START_MARKER)[2]


def tail(log: Path) -> str:
    """Return the last lines since a process's last start, indented below the log's path, for an error message.

    What they quote of others cannot control the terminal.
    """
    lines = since_start(log).splitlines()[1:][-TAIL_LINES:]
    return "\n".join([f"the end of {log}:", *(f"    {escape(line)}" for line in lines)]) if lines else f"{log} is empty"
