"""The parts' log files: where a start begins, what was said since, how an error quotes the end."""

from datetime import UTC, datetime
from pathlib import Path

TAIL_LINES = 12
STARTED = "--- started "


def heading() -> bytes:
    """The line that separates one start of a part from the next."""
    return f"{STARTED}{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n".encode()


def put_aside(log: Path) -> None:
    """Keeps an earlier run's log beside the new one, and only that one, so that logs do not grow for ever."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))


def since_start(log: Path) -> str:
    """What a part wrote since it was last started."""
    return log.read_text(errors="replace").rpartition(STARTED)[2]


def tail(log: Path) -> str:
    """The last lines that a part wrote since it was last started, indented below the log's path."""
    lines = since_start(log).splitlines()[1:][-TAIL_LINES:]
    return "\n".join([f"the end of {log}:", *(f"    {line}" for line in lines)]) if lines else f"{log} is empty"
