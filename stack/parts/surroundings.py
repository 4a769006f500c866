"""What the downloaded servers run in: their wheel's folder, an environment without the user's own settings."""

import os
from importlib.util import find_spec
from pathlib import Path

from stack.errors import StackError

LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).parents[2]
MEANT_FOR_OTHERS = ("PG", "JAVA_", "JDK_JAVA_", "_JAVA_", "CLASSPATH", "LC_", "LANG")


def wheel_folder(package: str) -> Path:
    """Where a package is installed, found without importing it; raises StackError if it is not installed."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise StackError(f"the package {package} is not installed: run `make .venv/.ready`")
    return Path(spec.origin).parent


def bare_environment() -> dict[str, str]:
    """A server's environment: without PGOPTIONS, JAVA_TOOL_OPTIONS and their like, which would change what it does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(MEANT_FOR_OTHERS)}
    return kept | {"LC_ALL": "C", "PYTHONPATH": str(ROOT)}
