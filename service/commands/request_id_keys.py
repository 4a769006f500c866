"""`coupons request-id-keys`: which keys sign request ids, and the removal of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from service import resources, startup
from service.commands.console import JsonOption, print_json, print_line, print_rows
from service.usecases.key_removal import KeyAdministration, ListedKey

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
    rows = [(one.key.fingerprint, _times(one), _place(one)) for one in listed]
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


def _times(one: ListedKey) -> str:
    if one.key.signs_since is None:
        return f"verified since {one.key.announced_at:%Y-%m-%d %H:%M:%S}Z, signs nothing yet"
    return f"signs since {one.key.signs_since:%Y-%m-%d %H:%M:%S}Z"


def _place(one: ListedKey) -> str:
    if one.place is None:
        return "missing"
    return "signs" if one.place == 0 else "verifies"
