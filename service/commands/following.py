"""What the commands share that follow something until its end."""

import time
from collections.abc import Callable, Iterator
from typing import Annotated, TypeVar

import typer

State = TypeVar("State")
EveryOption = Annotated[float, typer.Option("--every", min=0.1, max=3600, help="Seconds between two looks.")]


def follow(read: Callable[[], State], every_seconds: float, is_last: Callable[[State], bool]) -> Iterator[State]:
    """Yield what `read` returns, first and whenever it has changed, until `is_last`."""
    seen = None
    while True:
        found = read()
        if found != seen:
            yield found
        if is_last(found):
            return
        seen = found
        time.sleep(every_seconds)
