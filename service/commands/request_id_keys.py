"""`coupons request-id-keys`: which keys sign request ids, and the removal of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from service import resources, startup
from service.commands.console import JsonOption, print_json, print_line, print_rows
from service.usecases.key_removal import KeyAdministration

app = typer.Typer(
    help="The keys that sign request ids, by fingerprint: see docs/key-rotation.md.", no_args_is_help=True
)


@app.command("list")
def list_keys(*, as_json: JsonOption = False) -> None:
    """Show every key that is in use, since when, and whether REQUEST_ID_KEYS of this shell has it."""
    with _open_keys() as keys:
        listed = keys.list_keys()
    if as_json:
        print_json([{**one.key._asdict(), "place": one.place} for one in listed])
        return
    rows = []
    for key, place in listed:
        if key.signs_since:
            use = f"signs since {key.signs_since:%Y-%m-%d %H:%M:%S}Z"
        else:
            use = f"verified since {key.announced_at:%Y-%m-%d %H:%M:%S}Z, signs nothing yet"
        rows.append((key.fingerprint, use, "missing" if place is None else "verifies" if place else "signs"))
    print_rows(("Fingerprint", "Use", "REQUEST_ID_KEYS here"), rows)


@app.command()
def remove(
    fingerprint: Annotated[str, typer.Argument(help="As `list` shows it.")],
    *,
    even_if_used: Annotated[
        bool, typer.Option(help="Also if requests have ids of it: only if the key is lost for ever.")
    ] = False,
) -> None:
    """Remove a key of which no request has an id, so that processes need it no longer. Reads all requests."""
    with _open_keys() as keys:
        used = keys.remove(fingerprint, even_if_used=even_if_used)
    print_line(f"key {fingerprint}: removed; {used} requests have an id of it")


@contextmanager
def _open_keys() -> Iterator[KeyAdministration]:
    """Open the database only: the other resources need every key."""
    with startup.exit_on_error(), resources.open_key_administration(startup.configure_process()) as keys:
        yield keys
