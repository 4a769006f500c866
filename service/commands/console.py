"""What the commands share: opening the resources, reporting errors, and output as a table, tab-separated or JSON.

On a terminal, rows are printed as a table with headers, and cells that do not fit are shortened or wrapped. Otherwise
each row is one line of complete, tab-separated cells without a header. Characters of foreign text that could control
the terminal are escaped in all forms of output.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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
from service.log import escape, escape_lines
from service.resources import Resources

CouponOption = Annotated[
    int | None, typer.Option("--coupon", min=1, max=MAX_ID, help="Only this coupon, given by its id.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

#: a cell that is True or False is printed as a mark
Cell = str | int | bool
_MARKS = {True: ("ok", "✓", "green"), False: ("BROKEN", "✗", "bold red")}


@contextmanager
def open_for_command(name: str) -> Iterator[Resources]:
    """Open the resources for the duration of a command; print errors to standard error and exit with status 2."""
    with startup.exit_on_error():
        common = resources.open_resources(startup.configure_process(), name)
    try:
        yield common
    except CouponsError as error:
        typer.echo(escape_lines(str(error)), err=True)
        sys.exit(startup.EXIT_STATUS)
    finally:
        common.close()


def print_json(result: Any) -> None:
    """Print one line of JSON; named tuples become objects.

    Characters that are not printable are replaced by JSON's escapes, which keep the value.
    """
    text = msgspec.json.encode(_to_objects(result)).decode()
    typer.echo("".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text))


def _to_objects(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {name: _to_objects(part) for name, part in value.items()}
    return [_to_objects(part) for part in value] if isinstance(value, list | tuple) else value


def print_line(text: str) -> None:
    """Print one line."""
    typer.echo(escape(text))


def print_rows(headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, wrap_last: bool = False) -> None:
    """Print rows: a table with headers on a terminal, otherwise tab-separated without headers.

    On a terminal that is too narrow, the last column is wrapped if `wrap_last` is set and shortened otherwise.
    """
    if not sys.stdout.isatty():
        for row in rows:
            cells = (_MARKS[cell][0] if isinstance(cell, bool) else escape(str(cell)) for cell in row)
            typer.echo("\t".join(cells).rstrip("\t"))
        return
    console = Console(highlight=False)
    has_signs = not console.options.ascii_only
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        table.add_column(header, no_wrap=header != headers[-1])
    for row in rows:
        rendered: list[Text] = []
        for cell in row:
            if isinstance(cell, bool):
                word, sign, style = _MARKS[cell]
                rendered.append(Text(f"{sign} {word}" if has_signs else word, style))
            else:
                rendered.append(Text(escape(str(cell))))
        if not wrap_last:
            rendered[-1].no_wrap, rendered[-1].overflow = True, "ellipsis"
        table.add_row(*rendered)
    console.print(table)
