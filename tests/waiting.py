"""Waits for conditions, never for time."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(
    condition: Callable[[], Value | None], *, within_seconds: float = 20.0, every_seconds: float = 0.05
) -> Value:
    """The condition's first true value; fails with its last value when none came in time.

    An error of the condition counts as not yet, and is shown if it stays.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            last: object = condition()
        except Exception as error:  # noqa: BLE001  # parts are being killed: refused connections are not yet
            last = error
        if last and not isinstance(last, Exception):
            return last  # type: ignore[return-value]
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_seconds} s; last seen: {last!r}")
        time.sleep(every_seconds)
