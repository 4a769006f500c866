"""Runs a module and notes where its threads are: `python -m benchmarks.sampled OUT MODULE …`.

Samples, two hundred a second, are counted by the place in our code and the library that it was in, from the beginning
on, and written as JSON every quarter of a second; who wants a stretch of time subtracts. The main thread counts always,
also while it waits; any other only where it has used the processor since the last look (Linux tells). It slows what it
looks at by a few per cent: no other figure is taken from such a run.
"""

import json
import runpy
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

from stack.files import write_atomically

_EVERY_SECONDS = 0.005
#: more than it takes to look whether there is something to do
_RUN_NANOSECONDS = 1_000_000
WRITTEN_EVERY_SECONDS = 0.25
_ROOT = Path(__file__).parents[1]
_STANDARD = Path(json.__file__).parents[1].name
_OURS = ("service", "workers", "benchmarks")


def watch(out: Path) -> None:
    """Looks at every thread but its own for as long as the process lives."""
    seen, used, written = Counter[str](), dict[int, int](), 0.0
    while True:
        time.sleep(_EVERY_SECONDS)
        look(seen, used)
        if time.monotonic() > written + WRITTEN_EVERY_SECONDS:
            write_atomically(out, json.dumps(seen))
            written = time.monotonic()


def look(seen: Counter[str], used: dict[int, int]) -> None:
    """Counts where each thread is; `used` keeps the processor time that each had at the last look."""
    frames = sys._current_frames()  # noqa: SLF001  # what the standard library offers
    for thread in threading.enumerate():
        if thread is threading.main_thread():
            seen[place(frames.get(thread.ident or 0))] += 1
        elif thread is not threading.current_thread() and _has_run(thread.native_id or 0, used):
            seen[f"({thread.name}) {place(frames.get(thread.ident or 0))}"] += 1


def _has_run(number: int, used: dict[int, int]) -> bool:
    """Whether a thread has used the processor since the last look."""
    try:
        now = int(Path(f"/proc/self/task/{number}/schedstat").read_text().split()[0])
    except OSError:
        return False  # it has ended, or this is no Linux
    before, used[number] = used.get(number, now), now
    return now > before + _RUN_NANOSECONDS


def place(frame: FrameType | None) -> str:
    """The innermost function of ours, and the library that it called, as `package.module function → library`."""
    library = ""
    while frame:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(_ROOT) and (named := file.relative_to(_ROOT).with_suffix("")).parts[0] in _OURS:
            return f"{'.'.join(named.parts)} {frame.f_code.co_name}" + (f" → {library}" if library else "")
        library = library or _library(file)
        frame = frame.f_back
    return library or "?"


def _library(file: Path) -> str:
    """A file's package or module: what stands below site-packages, or below the standard library's folder."""
    parts = file.with_suffix("").parts
    for folder in ("site-packages", _STANDARD):
        if folder in parts:
            return parts[parts.index(folder) + 1]
    return file.stem


def main() -> None:
    """Runs the module as `python -m` would, sampled."""
    out, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    threading.Thread(target=watch, args=(Path(out),), name="sampler", daemon=True).start()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
