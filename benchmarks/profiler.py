"""Profile a process with py-spy from outside; as a command, run a module that py-spy may read.

A sampler inside the process would mostly see the points where the interpreter lock changes hands. py-spy reads the
process's memory a hundred times a second. Two samplers run: one counts all threads, one only the running ones.

`python -m benchmarks.profiler MODULE …` runs the module as `python -m` does, and lets every process of the same user
read its memory: some Linux systems allow that only to a parent or to root.
"""

import ctypes
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGINT
from typing import NamedTuple

from benchmarks import ROOT

MAIN_THREAD = "MainThread"
STDLIB_FOLDER = Path(subprocess.__file__).parent.name
_PACKAGES = ("service", "workers", "benchmarks")
_PY_SPY = (str(Path(sys.executable).parent / "py-spy"), "record", "--format", "raw", "--threads", "--full-filenames")
_EXIT_TIMEOUT_SECONDS = 30.0
_SET_PTRACER, _ANYONE = 0x59616D61, ctypes.c_ulong(-1)


class Profile(NamedTuple):
    """Shares of wall time by thread and code location: the thread was there, and the thread was running there."""

    present: dict[str, float]
    running: dict[str, float]


@contextmanager
def profile(pid: int, directory: Path, name: str) -> Iterator[Profile]:
    """Profile a process while the block runs; the profile is filled when the block ends.

    py-spy's raw output is kept in `directory` as `NAME.present` and `NAME.running`.
    """
    result = Profile({}, {})
    present_file, running_file = directory / f"{name}.present", directory / f"{name}.running"
    with ExitStack() as samplers:
        samplers.enter_context(_py_spy(pid, present_file, ("--idle",)))
        samplers.enter_context(_py_spy(pid, running_file, ()))
        yield result
    present, running = count_samples(present_file.read_text()), count_samples(running_file.read_text())
    total = sum(samples for location, samples in present.items() if location.startswith(f"({MAIN_THREAD})"))
    result.present.update({location: samples / total for location, samples in present.items()})
    result.running.update({location: samples / total for location, samples in running.items()})


@contextmanager
def _py_spy(pid: int, output: Path, options: tuple[str, ...]) -> Iterator[None]:
    command = (*_PY_SPY, "--nonblocking", "--pid", str(pid), "--output", str(output), *options)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as sampler:
        try:
            yield
        finally:
            sampler.send_signal(SIGINT)
        _, errors = sampler.communicate(timeout=_EXIT_TIMEOUT_SECONDS)
    assert output.exists(), f"py-spy could not read process {pid}: {errors}"


def count_samples(raw: str) -> Counter[str]:
    """Count samples by `(thread) location` in py-spy's raw format.

    A line reads `thread (1): name;outermost (file:1);…;innermost (file:2) 7`.
    """
    counts = Counter[str]()
    for line in raw.splitlines():
        stack, _, samples = line.rpartition(" ")
        thread, *frames = stack.split(";")
        counts[f"({thread.partition(': ')[2]}) {code_location(frames)}"] += int(samples)
    return counts


def code_location(frames: list[str]) -> str:
    """Return the innermost function of this project and the library that it called.

    The form is `package.module function → library`. Without a function of this project it is the library alone.
    """
    library = ""
    for frame in reversed(frames):
        function, _, source = frame.removesuffix(")").rpartition(" (")
        file = Path(source.rpartition(":")[0])
        if file.is_relative_to(ROOT) and (module := file.relative_to(ROOT).with_suffix("")).parts[0] in _PACKAGES:
            return f"{'.'.join(module.parts)} {function}" + (f" → {library}" if library else "")
        library = library or _library(file)
    return library or "?"


def _library(file: Path) -> str:
    """Return the package or module below site-packages or the standard library's folder, else the file's stem."""
    parts = file.with_suffix("").parts
    for folder in ("site-packages", STDLIB_FOLDER):
        if folder in parts:
            return parts[parts.index(folder) + 1]
    return file.stem


def main() -> None:
    """Run a module as `python -m` does, readable for py-spy."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PTRACER, _ANYONE, 0, 0, 0)
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
