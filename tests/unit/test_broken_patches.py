"""The patches that take guards out fit the code, so that `make broken` proves what it says."""

import subprocess
from pathlib import Path

import pytest

from tests.broken.__main__ import read
from tests.faults.ledger import Invariant

_ROOT = Path(__file__).resolve().parents[2]
_PATCHES = sorted((_ROOT / "tests" / "broken").glob("*.patch"))


@pytest.mark.parametrize("path", _PATCHES, ids=lambda path: path.stem)
def test_each_patch_applies_and_names_a_test_that_is_there(path: Path) -> None:
    """A guard's patch follows the guard's code; the test it names exists."""
    patch = read(path)

    subprocess.run(["git", "apply", "--check", str(path)], cwd=_ROOT, check=True)
    assert all((_ROOT / name.partition("::")[0]).exists() for name in patch.test.split() if name.startswith("tests/"))


def test_every_invariant_of_the_faults_was_seen_red() -> None:
    """A check that cannot fail is none."""
    assert {red for path in _PATCHES for red in read(path).red} == set(Invariant)


def test_every_promise_has_a_patch() -> None:
    """P1 to P7 each have a guard that has been seen missing."""
    assert {read(path).promise for path in _PATCHES} == {f"P{number}" for number in range(1, 8)}
