"""Live progress: a bar on a terminal, a plain line every second without one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

BAR_SECONDS = 0.2
BAR_WIDTH = 16  # what is told beside it fits into 80 columns then
LINE_SECONDS = 1.0


class Tick(NamedTuple):
    """How far it is at a moment."""

    done: int
    total: int
    text: str


@contextmanager
def shown(console: Console, what: str, now: Callable[[], Tick]) -> Iterator[None]:
    """Shows how far it is as long as the block runs."""
    with _bar(console, what, now) if console.is_terminal else _lines(console, what, now):
        yield


@contextmanager
def _bar(console: Console, what: str, now: Callable[[], Tick]) -> Iterator[None]:
    columns = (TextColumn("{task.description}"), BarColumn(BAR_WIDTH), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, text="")

        def show() -> None:
            done, total, text = now()
            progress.update(task, completed=done, total=total, text=text)

        with every(BAR_SECONDS, show):
            yield


@contextmanager
def _lines(console: Console, what: str, now: Callable[[], Tick]) -> Iterator[None]:
    def show() -> None:
        done, total, text = now()
        console.print(f"{what} {done:,}/{total:,} · {text}")

    with every(LINE_SECONDS, show):
        yield


@contextmanager
def every(seconds: float, show: Callable[[], None]) -> Iterator[None]:
    """Calls it again and again as long as the block runs, and once more at the end."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            show()

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    show()
