"""Small files of the local stack's directory: written whole or not at all, secrets readable by their owner only."""

import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file's content at once; only its owner can read it."""
    draft = path.with_name(f"{path.name}.draft")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(path)


def kept_secret(path: Path) -> str:
    """A random key of 32 bytes in hex, made at the first call and kept in a file."""
    if not path.exists():
        write_atomically(path, secrets.token_hex(32))
    return path.read_text()


def write_exports(path: Path, variables: Mapping[str, str]) -> None:
    """A file that a shell can source to get these variables."""
    write_atomically(path, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))


def read_exports(path: Path) -> dict[str, str]:
    """The variables of such a file; none if there is no file."""
    if not path.exists():
        return {}
    words = [word for word in shlex.split(path.read_text()) if word != "export"]
    return dict(word.split("=", 1) for word in words)
