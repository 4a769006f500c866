"""Reads the examples and tables of docs/own-servers.md."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "own-servers.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def example(*, containing: str) -> str:
    """Return the commands of the block that contains a text."""
    (found,) = [block for block in _BLOCK.findall(PAGE.read_text()) if containing in block]
    return "\n".join(line.removeprefix("$ ") for line in str(found).splitlines())


def table(header: str) -> list[list[str]]:
    """Return the cells of the rows below the table's header."""
    _, _, below = PAGE.read_text().partition(f"{header}\n")
    rows = below.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
