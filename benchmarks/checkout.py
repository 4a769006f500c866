"""The files of a commit, from which an environment starts its processes: this work tree, or another commit's export."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks import ROOT

_LOCK = "requirements-dev.lock"
_MAKE_ENVIRONMENT = ("make", ".venv/.ready", f"PYTHON={sys.executable}")


class Checkout(NamedTuple):
    """A folder with the files of a commit, and the folder of the commands of its Python environment."""

    root: Path
    commands: Path

    def argv(self, process: str) -> tuple[str, ...]:
        """Return the command of a process. The commit's own `entrypoint` says what it runs: module names may differ."""
        return ("/bin/sh", str(self.root / "entrypoint"), process)

    @property
    def variables(self) -> Mapping[str, str]:
        """Environment variables that make Python import the modules of this commit."""
        return {"PATH": f"{self.commands}:{os.environ['PATH']}", "PYTHONPATH": str(self.root)}


WORK_TREE = Checkout(ROOT, Path(sys.executable).parent)
"""This project as it is, uncommitted changes included."""


def resolve_commit(revision: str) -> str:
    """Return the short hash of a revision; raise ValueError if the repository has no such commit."""
    command = ("git", "rev-parse", "--verify", "--quiet", "--short", f"{revision}^{{commit}}")
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise ValueError(f"{revision} is not a commit of this repository")
    return found.stdout.strip()


def export(commit: str, directory: Path) -> Checkout:
    """Export a commit's files to `directory/COMMIT`, unless they are there; install its packages if they differ.

    The folder is complete or absent: the files are extracted under a draft name.
    """
    root = (directory / commit).resolve()
    if not root.exists():
        draft = root.with_name(f"{commit}.draft")
        shutil.rmtree(draft, ignore_errors=True)
        archive = subprocess.run(("git", "archive", "--format=tar", commit), cwd=ROOT, capture_output=True, check=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(draft, filter="data")
        draft.rename(root)
    return Checkout(root, _commands(root))


def _commands(root: Path) -> Path:
    """Return the commands of this environment if a commit has the same lock file, else of one that its Makefile makes.

    The editable install of this work tree does not matter: PYTHONPATH precedes it.
    """
    if (root / _LOCK).read_bytes() == (ROOT / _LOCK).read_bytes():
        return WORK_TREE.commands
    subprocess.run(_MAKE_ENVIRONMENT, cwd=root, check=True)
    return root / ".venv" / "bin"
