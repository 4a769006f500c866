"""What the commands share: opening the resources, reporting errors, and output as a table, tab-separated or JSON.

On a terminal, rows are printed as a table with headers, and cells that do not fit are shortened or wrapped. Otherwise
each row is one line of complete, tab-separated cells without a header. Characters of foreign text that could control
the terminal are escaped in all forms of output.

A reader may close the pipe before the end, as `head` does. The command then goes on without output and ends with its
usual status. What prints returns whether somebody still reads, so that a command that does nothing else can end.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service import resources, startup
from service.domain.errors import CouponsError
from service.limits import MAX_ID
from service.log import escape
from service.resources import Resources

CouponOption = Annotated[
    int | None, typer.Option("--coupon", min=1, max=MAX_ID, help="Only this coupon, given by its id.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class Mark(Enum):
    """A cell that is printed as a word, on a terminal with a sign and a color."""

    OK = ("ok", "✓", "green")
    BROKEN = ("BROKEN", "✗", "bold red")
    FAILED = ("FAILED", "✗", "bold red")
    WARNING = ("warning", "!", "yellow")
    SKIPPED = ("not checked", "-", "dim")

    @property
    def word(self) -> str:
        """What a pipe receives."""
        return self.value[0]


Cell = str | int | Mark


@contextmanager
def open_for_command(name: str) -> Iterator[Resources]:
    """Open the resources for the duration of a command; print errors to standard error and exit with status 2."""
    with startup.exit_on_error():
        common = resources.open_resources(startup.configure_process(), name)
    try:
        yield common
    except CouponsError as error:
        startup.print_error(str(error))
        sys.exit(startup.EXIT_STATUS)
    finally:
        common.close()


def print_json(result: Any) -> bool:
    """Print one line of JSON; named tuples become objects. Return whether somebody reads.

    Characters that are not printable are replaced by JSON's escapes, which keep the value.
    """
    text = msgspec.json.encode(_to_objects(result)).decode()
    return _echo("".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text))


def _to_objects(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _to_objects(part) for name, part in value.items()}
    return [_to_objects(part) for part in value] if isinstance(value, list | tuple) else value


def print_line(text: str) -> bool:
    """Print one line; return whether somebody reads."""
    return _echo(escape(text))


def print_rows(headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, wrap_last: bool = False) -> bool:
    """Print rows: a table with headers on a terminal, otherwise tab-separated without headers.

    On a terminal that is too narrow, the last column is wrapped if `wrap_last` is set and shortened otherwise. Return
    whether somebody reads.
    """
    if sys.stdout.isatty():
        console = Console(highlight=False)
        console.print(make_table(headers, rows, wrap_last=wrap_last, signs=not console.options.ascii_only))
        return True
    is_read = True
    for row in rows:
        is_read &= _echo("\t".join(map(_plain, row)).rstrip("\t"))
    return is_read


def make_table(
    headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, wrap_last: bool = False, signs: bool = True
) -> Table:
    """Return rows as a table for a terminal; `signs`: whether the terminal has the signs of marks."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, no_wrap=header != headers[-1])
    for row in rows:
        rendered: list[Text] = []
        for cell in row:
            if isinstance(cell, Mark):
                word, sign, style = cell.value
                rendered.append(Text(f"{sign} {word}" if signs else word, style))
            else:
                rendered.append(Text(escape(str(cell))))
        if not wrap_last:
            rendered[-1].no_wrap, rendered[-1].overflow = True, "ellipsis"
        table.add_row(*rendered)
    return table


def write_bytes(content: bytes) -> bool:
    """Write to standard output as it is; return whether somebody reads."""
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        return _discard_output()
    return True


def show_time(at: datetime | None) -> str:
    """Return a time as all commands show it: UTC, to the millisecond."""
    return "-" if at is None else f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def _plain(cell: Cell) -> str:
    return cell.word if isinstance(cell, Mark) else escape(str(cell))


def _echo(text: str) -> bool:
    try:
        typer.echo(text)
    except BrokenPipeError:
        return _discard_output()
    return True


def _discard_output() -> bool:
    startup.discard(sys.stdout)
    return False
