"""Live progress: a bar on a terminal, one plain line a second elsewhere."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

BAR_SECONDS = 0.2
BAR_WIDTH = 16  # the text beside it then fits into 80 columns
LINE_SECONDS = 1.0


class Tick(NamedTuple):
    """Progress at one moment."""

    done: int
    total: int
    text: str


@contextmanager
def show_progress(console: Console, name: str, read: Callable[[], Tick]) -> Iterator[None]:
    """Show progress while the block runs; `read` is called for each update."""
    with _bar(console, name, read) if console.is_terminal else _lines(console, name, read):
        yield


@contextmanager
def _bar(console: Console, name: str, read: Callable[[], Tick]) -> Iterator[None]:
    columns = (TextColumn("{task.description}"), BarColumn(BAR_WIDTH), TextColumn("{task.fields[text]}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(name, text="")

        def update() -> None:
            done, total, text = read()
            progress.update(task, completed=done, total=total, text=text)

        with repeat_every(BAR_SECONDS, update):
            yield


@contextmanager
def _lines(console: Console, name: str, read: Callable[[], Tick]) -> Iterator[None]:
    def update() -> None:
        done, total, text = read()
        console.print(f"{name} {done:,}/{total:,} · {text}")

    with repeat_every(LINE_SECONDS, update):
        yield


@contextmanager
def repeat_every(seconds: float, function: Callable[[], None]) -> Iterator[None]:
    """Call a function in a thread every so many seconds while the block runs, and once more at its end."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            function()

    thread = threading.Thread(target=run, name="repeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    function()
