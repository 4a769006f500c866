"""This process's clock, which tests may shift, and the chance that spreads those who wait."""

from random import random
from time import time

from service.config import Settings


class Shift:
    """How far the clock has been shifted, in milliseconds."""

    by_ms = 0


def configure(settings: Settings) -> None:
    """Shifts the clock as the settings say."""
    Shift.by_ms = settings.clock_offset_ms


def now_ms() -> int:
    """Milliseconds since 1970 UTC."""
    return int(time() * 1000) + Shift.by_ms


def jitter() -> float:
    """A random number from 0 to 1, for pauses."""
    return random()  # noqa: S311  # nothing secret hangs on it
