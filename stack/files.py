"""Files of a stack: private directories, atomic writes, secrets, and the `env` file that a shell can source."""

import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path


def create_private_directory(path: Path) -> None:
    """Create a directory that only its owner can enter; an existing one becomes private."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content in one step; only its owner can read it. A crash leaves the old content."""
    draft = path.with_name(f"{path.name}.draft")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def load_or_create_secret(path: Path) -> str:
    """Return the key stored in a file; the first call creates it from 32 random bytes, in hex."""
    if not path.exists():
        write_atomically(path, secrets.token_hex(32))
    return path.read_text()


def write_exports(path: Path, variables: Mapping[str, str]) -> None:
    """Write a file that a shell can source to set these variables."""
    write_atomically(path, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))


def read_exports(path: Path) -> dict[str, str]:
    """Return the variables written by `write_exports`; empty if the file does not exist."""
    if not path.exists():
        return {}
    words = [word for word in shlex.split(path.read_text()) if word != "export"]
    return dict(word.split("=", 1) for word in words)
