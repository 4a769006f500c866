"""`coupons keys`: make, list, rotate and revoke API keys."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from service import config, resources, startup
from service.commands.console import JsonOption, print_json, print_line, print_rows
from service.domain.api_key import NewKey
from service.domain.caller import Role
from service.usecases.api_keys import REFRESH_SECONDS, ApiKeyService

app = typer.Typer(help="API keys of back ends and operators.", no_args_is_help=True)
_PrefixArgument = Annotated[str, typer.Argument(help="The first characters of the key, as `list` shows them.")]
_DaysOption = Annotated[int, typer.Option("--days", min=1, max=3650, help="How long it is valid. Default: 365.")]
_DEFAULT_DAYS = 365


@app.command()
def new(
    owner: Annotated[str, typer.Argument(help="Who or what uses the key: the audit trail shows it.")],
    role: Annotated[Role, typer.Option(help="What it may do: docs/security.md lists it.")],
    days: _DaysOption = _DEFAULT_DAYS,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a key. Its text is shown once and stored nowhere."""
    with _open_keys() as keys:
        made = keys.create(owner, role, timedelta(days=days))
    _print_new(made, as_json=as_json)


@app.command("list")
def page(*, as_json: JsonOption = False) -> None:
    """List all keys with their owner, role and state."""
    with _open_keys() as keys:
        found = keys.list_all()
    if as_json:
        print_json(found)
        return
    rows = []
    for key in found:
        state = "valid"
        if key.revoked_at is not None:
            state = f"revoked {_time(key.revoked_at)}"
        elif key.expires_at is not None:
            state = f"{'expired' if key.expires_at <= time.time() else 'valid until'} {_time(key.expires_at)}"
        owner = f"{key.owner}, made by {key.created_by}"
        rows.append((key.prefix, key.role, state, _time(key.last_used_at), owner))
    print_rows(("Key", "Role", "State", "Last used", "Owner"), rows, wrap_last=True)


@app.command()
def rotate(
    prefix: _PrefixArgument,
    overlap_hours: Annotated[float, typer.Option(min=0, max=8760, help="How long the old key stays valid.")] = 24,
    days: _DaysOption = _DEFAULT_DAYS,
    *,
    as_json: JsonOption = False,
) -> None:
    """Make a key with the owner and role of another, which stays valid for a while."""
    with _open_keys() as keys:
        made = keys.rotate(prefix, timedelta(hours=overlap_hours), timedelta(days=days))
    _print_new(made, as_json=as_json)


@app.command()
def revoke(prefix: _PrefixArgument, *, as_json: JsonOption = False) -> None:
    """Make a key invalid."""
    with _open_keys() as keys:
        keys.revoke(prefix)
    if as_json:
        print_json({"prefix": prefix, "refused_within_seconds": REFRESH_SECONDS})
        return
    print_line(f"{prefix} is revoked; every API process refuses it within {REFRESH_SECONDS:g} s")


@contextmanager
def _open_keys() -> Iterator[ApiKeyService]:
    """Open the database only: a key that others have seen must be revoked also without Kafka and Redis."""
    with (
        startup.exit_on_error(),
        resources.open_api_keys(startup.configure_process(config.load_without_keys)) as keys,
    ):
        yield keys


def _print_new(made: NewKey, *, as_json: bool) -> None:
    if as_json:
        print_json({"key": made.text, "prefix": made.prefix})
    else:
        print_line(made.text)
        typer.echo(f"Store it now: it is not shown again. It is valid within {REFRESH_SECONDS:g} s.", err=True)


def _time(at: float | None) -> str:
    return "never" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}Z"
