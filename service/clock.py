"""This process's clock, which tests may shift, and the chance that spreads those who wait."""

from pathlib import Path
from random import random
from time import time

from service.config import Settings


class Shift:
    """How far the clock has been shifted, in milliseconds: from the start, and by what the file says at the moment."""

    by_ms = 0
    file: Path | None = None


def configure(settings: Settings) -> None:
    """Shifts the clock as the settings say; a file `clock` in the folder of crash points makes it jump."""
    Shift.by_ms = settings.clock_offset_ms
    Shift.file = Path(settings.crash_points) / "clock" if settings.crash_points else None


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return int(time() * 1000) + Shift.by_ms + (_jumped_ms(Shift.file) if Shift.file else 0)


def _jumped_ms(file: Path) -> int:
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):  # it has not jumped, or the file is being written
        return 0


def jitter() -> float:
    """A random number from 0 to 1, for pauses."""
    return random()  # noqa: S311  # nothing secret hangs on it
