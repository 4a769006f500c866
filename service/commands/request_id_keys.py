"""`coupons request-id-keys`: which keys sign request ids, and the end and removal of one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from service import resources, startup
from service.commands.console import JsonOption, print_json, print_line, print_rows
from service.limits import MIN_KEY_END_SECONDS
from service.usecases.key_removal import KeyAdministration, ListedKey

#: long enough that every process has read the register many times
_END_SECONDS = 3_600

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
def end(
    fingerprint: Annotated[str, typer.Argument(help="As `list` shows it.")],
    *,
    in_seconds: Annotated[
        int,
        typer.Option(min=MIN_KEY_END_SECONDS, help="Until then each process that signs must have read the register."),
    ] = _END_SECONDS,
    as_json: JsonOption = False,
) -> None:
    """Let a key end that no process signs with any more: ids that it signs later count as another producer's."""
    with _open_keys() as keys:
        ends_at = keys.end(fingerprint, in_seconds)
    if as_json:
        print_json({"fingerprint": fingerprint, "ends_at": ends_at})
    else:
        print_line(f"key {fingerprint}: ends at {ends_at:%Y-%m-%d %H:%M:%S}Z")


@app.command()
def remove(
    fingerprint: Annotated[str, typer.Argument(help="As `list` shows it.")],
    *,
    even_if_used: Annotated[
        bool, typer.Option(help="Also if requests have ids of it: only if the key is lost for ever.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a key of which no request has an id, so that processes need it no longer. Reads all requests."""
    with _open_keys() as keys:
        used = keys.remove(fingerprint, even_if_used=even_if_used)
    if as_json:
        print_json({"fingerprint": fingerprint, "requests": used})
    else:
        print_line(f"key {fingerprint}: removed; {used} requests have an id of it")


@contextmanager
def _open_keys() -> Iterator[KeyAdministration]:
    """Open no other resources: they need every key."""
    with startup.exit_on_error(), resources.open_key_administration(startup.configure_process()) as keys:
        yield keys


def _times(one: ListedKey) -> str:
    key = one.key
    if key.ends_at:
        late = f", an id of it was read later, at {key.late_id_at:%Y-%m-%d %H:%M}Z" if key.late_id_at else ""
        return f"{'ended' if key.has_ended else 'ends'} at {key.ends_at:%Y-%m-%d %H:%M:%S}Z{late}"
    if key.signs_since is None:
        return f"verified since {key.announced_at:%Y-%m-%d %H:%M:%S}Z, signs nothing yet"
    return f"signs since {key.signs_since:%Y-%m-%d %H:%M:%S}Z"


def _place(one: ListedKey) -> str:
    if one.place is None:
        return "missing"
    return "signs" if one.place == 0 else "verifies"
