"""Reads and runs the examples of docs/own-servers.md, and reads its tables."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "own-servers.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def example(*, containing: str) -> str:
    """Return the commands of the block that contains a text."""
    (found,) = [block for block in _BLOCK.findall(PAGE.read_text()) if containing in block]
    return "\n".join(line.removeprefix("$ ") for line in str(found).splitlines())


def run(
    commands: str, replaced: Mapping[str, str], environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run an example with what stands here for its names and passwords; each of those must be in it."""
    for theirs, here in replaced.items():
        assert theirs in commands, theirs
        commands = commands.replace(theirs, here)
    path = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail\n{commands}"],
        env={**environment, "PATH": path},
        cwd=PAGE.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def table(header: str) -> list[list[str]]:
    """Return the cells of the rows below the table's header."""
    _, _, below = PAGE.read_text().partition(f"{header}\n")
    rows = below.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
