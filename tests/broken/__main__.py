"""Applies each patch to a copy of the project and expects its test to fail: `make broken`.

A patch opens with lines `Promise:`, `Guard:`, `Test:` (pytest node ids and options) and, where the test is a row of
faults, `Red:` (the invariants that must notice); the diff follows.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.faults.ledger import Invariant

_ROOT = Path(__file__).resolve().parents[2]
_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".stack", "__pycache__", ".*_cache", ".hypothesis")
#: pytest's exit status when tests ran and some failed; anything else is not the red that is wanted
_TESTS_FAILED = 1
_SECONDS_MOST = 240


class Patch(NamedTuple):
    """A guard taken out, and the test that must notice."""

    path: Path
    promise: str
    guard: str
    test: str
    #: the invariants of a row of faults that must notice; none: whatever fails
    red: frozenset[Invariant]


def main() -> int:
    """Prints a line for each patch; the number of those whose test did not fail."""
    chosen = [Path(name).stem for name in sys.argv[1:]]
    patches = [
        read(path) for path in sorted(Path(__file__).parent.glob("*.patch")) if not chosen or path.stem in chosen
    ]
    green = sum(not is_red(patch) for patch in patches)
    print(f"{len(patches)} guards taken out, {green} not noticed")
    return green


def read(path: Path) -> Patch:
    """The patch's opening lines."""
    said = dict(line.split(": ", 1) for line in path.read_text().split("\ndiff ")[0].strip().splitlines())
    red = frozenset(Invariant[name] for name in said["Red"].split(", ")) if "Red" in said else frozenset()
    return Patch(path, said["Promise"], said["Guard"], said["Test"], red)


def is_red(patch: Patch) -> bool:
    """Whether the patched copy fails the patch's test, and the copy without it passes."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(_ROOT, copy, ignore=_LEFT_OUT)
        whole, _ = run(copy, patch.test)
        subprocess.run(["git", "apply", str(patch.path)], cwd=copy, check=True)
        broken, said = run(copy, patch.test)
    noticed = all(f"Violated: {invariant}" in said for invariant in patch.red)
    red = whole == 0 and broken == _TESTS_FAILED and noticed
    verdict = "red, as it should be" if red else f"NOT NOTICED (exit {whole} whole, {broken} broken)\n{said[-3000:]}"
    print(f"{patch.promise} {patch.path.stem}: without {patch.guard}: {verdict}", flush=True)
    return red


def run(copy: Path, test: str) -> tuple[int, str]:
    """The exit status of pytest for one test in the copy, and what it said; one that hangs has failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *test.split()]
    try:
        ran = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=_SECONDS_MOST, check=False)
    except subprocess.TimeoutExpired:
        return _TESTS_FAILED, f"not within {_SECONDS_MOST} s"
    return ran.returncode, ran.stdout


if __name__ == "__main__":
    sys.exit(main())
