"""Where the threads of a process are while a block runs, as py-spy sees it from outside.

A sampler within the process would mostly see where the interpreter is handed on. py-spy reads the process's memory a
hundred times a second, twice: once every thread, once those that run. What is said of both is a part of the time.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGINT
from typing import NamedTuple

from benchmarks.ground import Ground
from stack.parts.surroundings import ROOT

_OURS = ("service", "workers", "benchmarks")
MAIN = "MainThread"
STANDARD = Path(subprocess.__file__).parent.name
_SPY = (str(Path(sys.executable).parent / "py-spy"), "record", "--format", "raw", "--threads", "--full-filenames")
_ENDED_SECONDS = 30.0


class Seen(NamedTuple):
    """Shares of the time, by thread and place: in which it was there, and in which it ran there."""

    there: dict[str, float]
    ran: dict[str, float]


@contextmanager
def spying(ground: Ground, part: str) -> Iterator[Seen]:
    """Looks at a part while the block runs; what it gives is filled when the block has ended."""
    seen = Seen({}, {})
    always, running = (ground.stack.directory / f"{part}.{name}" for name in ("always", "running"))
    with ExitStack() as spies:
        for out, more in ((always, ("--idle",)), (running, ())):
            spies.enter_context(_spy(ground.stack.pid(part), out, more))
        yield seen
    there, ran = read(always.read_text()), read(running.read_text())
    looks = sum(samples for place, samples in there.items() if place.startswith(f"({MAIN})"))
    seen.there.update({place: samples / looks for place, samples in there.items()})
    seen.ran.update({place: samples / looks for place, samples in ran.items()})


@contextmanager
def _spy(pid: int, out: Path, more: tuple[str, ...]) -> Iterator[None]:
    command = (*_SPY, "--nonblocking", "--pid", str(pid), "--output", str(out), *more)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as spy:
        try:
            yield
        finally:
            spy.send_signal(SIGINT)
        _, said = spy.communicate(timeout=_ENDED_SECONDS)
    assert out.exists(), f"py-spy could not look at {pid}: {said}"


def read(raw: str) -> Counter[str]:
    """Samples by thread and place, of py-spy's lines: `thread (1): name;outermost (file:1);…;innermost (file:2) 7`."""
    seen = Counter[str]()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        thread, *frames = stack.split(";")
        seen[f"({thread.partition(': ')[2]}) {place(frames)}"] += int(samples)
    return seen


def place(frames: list[str]) -> str:
    """The innermost function of ours, and the library that it called, as `package.module function → library`."""
    library = ""
    for frame in reversed(frames):
        name, _, where = frame.removesuffix(")").rpartition(" (")
        file = Path(where.rpartition(":")[0])
        if file.is_relative_to(ROOT) and (ours := file.relative_to(ROOT).with_suffix("")).parts[0] in _OURS:
            return f"{'.'.join(ours.parts)} {name}" + (f" → {library}" if library else "")
        library = library or _library(file)
    return library or "?"


def _library(file: Path) -> str:
    """A file's package or module: what stands below site-packages, or below the standard library's folder."""
    parts = file.with_suffix("").parts
    for folder in ("site-packages", STANDARD):
        if folder in parts:
            return parts[parts.index(folder) + 1]
    return file.stem
