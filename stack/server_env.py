"""Where servers run: the loopback address, an installed wheel's directory, a clean environment."""

import os
from importlib.util import find_spec
from pathlib import Path

from stack.errors import StackError

LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).parents[1]
"""The repository's root: the working directory of the application's processes."""

REMOVED_PREFIXES = ("PG", "JAVA_", "JDK_JAVA_", "_JAVA_", "CLASSPATH", "LC_", "LANG")
"""Variables for the user's own PostgreSQL and Java: PGOPTIONS or JAVA_TOOL_OPTIONS would change how a server runs."""


def wheel_folder(package: str) -> Path:
    """Return the directory of an installed package without importing it; raises StackError if it is missing."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise StackError(f"the package {package} is not installed: run `make .venv/.ready`")
    return Path(spec.origin).parent


def clean_environment() -> dict[str, str]:
    """Return a server's environment: the user's, without REMOVED_PREFIXES, in the C locale."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(REMOVED_PREFIXES)}
    return kept | {"LC_ALL": "C", "PYTHONPATH": str(ROOT)}
