"""Runs a module and notes where its main thread is: `python -m benchmarks.sampled OUT MODULE …`.

Samples, five hundred a second, are counted by the place in our code and the library that it was in, from the
beginning on, and written as JSON every quarter of a second; who wants a stretch of time subtracts. The threads beside
the main one are not looked at. It slows what it looks at by a few per cent: no other figure is taken from such a run.
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

_EVERY_SECONDS = 0.002
WRITTEN_EVERY_SECONDS = 0.25
_ROOT = Path(__file__).parents[1]
_STANDARD = Path(json.__file__).parents[1].name
_OURS = ("service", "workers", "benchmarks")


def watch(out: Path) -> None:
    """Looks at the main thread for as long as the process lives."""
    main, seen, written = threading.main_thread().ident or 0, Counter[str](), 0.0
    while True:
        time.sleep(_EVERY_SECONDS)
        seen[place(sys._current_frames().get(main))] += 1  # noqa: SLF001  # what the standard library offers
        if time.monotonic() > written + WRITTEN_EVERY_SECONDS:
            write_atomically(out, json.dumps(seen))
            written = time.monotonic()


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
