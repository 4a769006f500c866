"""The clock of this process, which tests may shift, and the random jitter of pauses."""

from pathlib import Path
from random import random
from time import time

from service.config import Settings


class Shift:
    """The shift of the clock: milliseconds set at start, plus the milliseconds that the file contains, if it exists."""

    by_ms = 0
    file: Path | None = None


def configure(settings: Settings) -> None:
    """Shift the clock by CLOCK_OFFSET_MS; a file `clock` in the folder CRASH_POINTS shifts it at run time."""
    Shift.by_ms = settings.clock_offset_ms
    Shift.file = Path(settings.crash_points) / "clock" if settings.crash_points else None


def now_ms() -> int:
    """Return milliseconds since 1970 UTC."""
    return int(time() * 1000) + shift_ms()


def shift_ms() -> int:
    """Return the milliseconds by which the clock is shifted; 0 outside tests."""
    if Shift.file is None:
        return Shift.by_ms
    try:
        return Shift.by_ms + int(Shift.file.read_text())
    except (FileNotFoundError, ValueError):  # the file does not exist, or is being written
        return Shift.by_ms


def jitter() -> float:
    """Return a random number from 0 to 1 that spreads the pauses of processes."""
    return random()  # noqa: S311  # no secret depends on it
