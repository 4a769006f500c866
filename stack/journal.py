"""The supervisor's own words: into its log with the time, and to whoever listens."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Self


class Journal:
    """What the supervisor did, one line each."""

    def __init__(self, path: Path, tell: Callable[[str], object] | None) -> None:
        self.file = path.open("ab", buffering=0)
        self._tell = tell

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.file.close()

    def say(self, line: str) -> None:
        """Notes a line and tells it."""
        self.file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {line}\n".encode())
        if self._tell:
            self._tell(line)
