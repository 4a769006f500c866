"""Waiting for conditions instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def eventually(
    condition: Callable[[], Value | None], *, within_seconds: float = 20.0, every_seconds: float = 0.05
) -> Value:
    """Call the condition until it returns a true value, and return that value.

    An exception of the condition counts as "not yet". Raises AssertionError with the last value or exception when
    `within_seconds` are over.
    """
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            last: object = condition()
        except Exception as error:  # noqa: BLE001  # a server may be down: a refused connection means not yet
            last = error
        if last and not isinstance(last, Exception):
            return last  # type: ignore[return-value]
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {within_seconds} s; last value: {last!r}")
        time.sleep(every_seconds)
