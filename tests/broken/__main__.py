"""Removes each guard from a copy of the project and expects its test to fail: `make broken`.

A patch begins with the lines `Promise:` (P1 to P7, or `security`: a rule of docs/security.md), `Guard:`, `Test:`
(pytest node ids and options) and, if the test is a row of the fault suite, `Red:` (the invariants that must fail). The
diff follows.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.faults.invariants import Invariant

_ROOT = Path(__file__).resolve().parents[2]
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".stack", "__pycache__", ".*_cache", ".hypothesis")
#: pytest's exit status when tests ran and some failed; any other status proves nothing
_TESTS_FAILED = 1
_TIMEOUT_SECONDS = 240


class Patch(NamedTuple):
    """A guard to remove, and the test that must fail without it."""

    path: Path
    promise: str
    guard: str
    test: str
    #: the invariants of the fault suite that must fail; empty: any failure counts
    red: frozenset[Invariant]


def main() -> int:
    """Print a line for each patch; return the number of patches whose test did not fail."""
    selected = [Path(name).stem for name in sys.argv[1:]]
    patches = [
        read(path) for path in sorted(Path(__file__).parent.glob("*.patch")) if not selected or path.stem in selected
    ]
    unnoticed = sum(not is_noticed(patch) for patch in patches)
    print(f"{len(patches)} guards removed, {unnoticed} not noticed")
    return unnoticed


def read(path: Path) -> Patch:
    """Return the patch with the values of its first lines."""
    header = dict(line.split(": ", 1) for line in path.read_text().split("\ndiff ")[0].strip().splitlines())
    red = frozenset(Invariant[name] for name in header["Red"].split(", ")) if "Red" in header else frozenset()
    return Patch(path, header["Promise"], header["Guard"], header["Test"], red)


def is_noticed(patch: Patch) -> bool:
    """Return whether the test passes in a copy of the project and fails in the copy with the patch."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(_ROOT, copy, ignore=_NOT_COPIED)
        intact, _ = run(copy, patch.test)
        subprocess.run(["git", "apply", str(patch.path)], cwd=copy, check=True)
        broken, output = run(copy, patch.test)
    noticed = all(f"Violated: {invariant}" in output for invariant in patch.red)
    is_red = intact == 0 and broken == _TESTS_FAILED and noticed
    unnoticed = f"NOT NOTICED (exit {intact} intact, {broken} broken)\n{output[-3000:]}"
    verdict = "noticed" if is_red else unnoticed
    print(f"{patch.promise} {patch.path.stem}: without {patch.guard}: {verdict}", flush=True)
    return is_red


def run(copy: Path, test: str) -> tuple[int, str]:
    """Run a test in the copy; return pytest's exit status and output. A test that hangs has failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *test.split()]
    try:
        completed = subprocess.run(
            command, cwd=copy, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return _TESTS_FAILED, f"not within {_TIMEOUT_SECONDS} s"
    return completed.returncode, completed.stdout


if __name__ == "__main__":
    sys.exit(main())
