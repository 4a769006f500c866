"""The patches that remove guards apply to the code, so that `make broken` proves what it claims."""

import subprocess
from pathlib import Path

import pytest

from tests.broken.__main__ import read
from tests.faults.invariants import Invariant

_ROOT = Path(__file__).resolve().parents[2]
_PATCHES = sorted((_ROOT / "tests" / "broken").glob("*.patch"))


@pytest.mark.parametrize("path", _PATCHES, ids=lambda path: path.stem)
def test_each_patch_applies_and_names_an_existing_test(path: Path) -> None:
    """A change of a guard's code must update its patch."""
    patch = read(path)

    subprocess.run(["git", "apply", "--check", str(path)], cwd=_ROOT, check=True)
    named = [name for name in patch.test.split() if name.startswith("tests/")]
    assert named
    for path_of_test, _, function in (name.partition("::") for name in named):
        target = _ROOT / path_of_test
        assert target.is_dir() or f"def {function.partition('[')[0]}" in target.read_text()


def test_every_invariant_of_the_fault_suite_can_fail() -> None:
    """For each one a patch exists that makes it fail."""
    assert {red for path in _PATCHES for red in read(path).red} == set(Invariant)


def test_every_promise_has_a_patch() -> None:
    """P1 to P7 each have a guard whose removal a test notices, and so have the rules of docs/security.md."""
    assert {read(path).promise for path in _PATCHES} == {*(f"P{number}" for number in range(1, 8)), "security"}
