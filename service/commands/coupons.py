"""`coupons coupon`: create, list, show, watch and change coupons."""

import sys
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import typer
from rich.live import Live

from service import resources
from service.clock import now_ms
from service.commands import reports
from service.commands.console import (
    Cell,
    JsonOption,
    make_table,
    open_for_command,
    print_json,
    print_rows,
    show_time,
)
from service.commands.following import EveryOption, follow
from service.domain.coupon import Coupon, CouponFilter, CouponState, Override
from service.domain.coupon_name import name_fault, normalize_name, part_fault
from service.limits import MAX_ID, MAX_PAGE_SIZE, MAX_QUANTITY
from service.timestamps import to_optional_datetime, to_storable_milliseconds

app = typer.Typer(help="Coupons: what they are, how they are sold, and changes of them.", no_args_is_help=True)
app.command()(reports.report)
app.command()(reports.export)

_IdArgument = Annotated[int, typer.Argument(min=1, max=MAX_ID, help="The id of the coupon.")]
_QUANTITY_HELP = "How many can be issued."
_WAITLIST_HELP = "How many users beyond the quantity are admitted."
_OPENS_HELP = "From when on users can request it, in RFC 3339: 2030-01-01T12:00:00Z."
_CLOSES_HELP = "Until when users can request it, in RFC 3339."
_NEVER = "none"
_HEADERS = ("Id", "State", "Quantity", "Issued", "Held", "Standby", "Remaining", "Name")


def _parse_time(text: str | None) -> int | None:
    """Return milliseconds since 1970 UTC."""
    if text is None or text == _NEVER:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError("a time needs its zone, as in 2030-01-01T12:00:00Z")
        return to_storable_milliseconds("the time", at)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}") from None


def _parse_name(text: str) -> str:
    name = normalize_name(text)
    if fault := name_fault(name):
        raise typer.BadParameter(fault)
    return name


_NameArgument = Annotated[str, typer.Argument(help="The name, as users see it.", parser=_parse_name)]


@app.command()
def create(
    name: _NameArgument,
    quantity: Annotated[int, typer.Option(min=1, max=MAX_QUANTITY, help=_QUANTITY_HELP)],
    waitlist: Annotated[int, typer.Option(min=0, max=MAX_QUANTITY, help=_WAITLIST_HELP)] = 0,
    opens_at: Annotated[str | None, typer.Option(help=f"{_OPENS_HELP} Default: at once.")] = None,
    closes_at: Annotated[str | None, typer.Option(help=f"{_CLOSES_HELP} Default: no end.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="A text of your choice: a repeat with it creates no second coupon.")
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Create a coupon."""
    opens_at_ms, closes_at_ms = _parse_time(opens_at), _parse_time(closes_at)
    if opens_at_ms is not None and closes_at_ms is not None and closes_at_ms <= opens_at_ms:
        raise typer.BadParameter("--closes-at must be after --opens-at.")
    with open_for_command("coupon") as common:
        service = resources.coupon_service(common)
        made = service.create(name, quantity, waitlist, opens_at_ms, closes_at_ms, idempotency_key)
    _print(made, as_json=as_json)


@app.command("list")
def page(
    name: Annotated[str | None, typer.Option(help="Only those whose name contains this text, in any case.")] = None,
    state: Annotated[CouponState | None, typer.Option(help="Only those in this state.")] = None,
    after: Annotated[int, typer.Option(help="Only ids above this one: continues an earlier list.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE_SIZE)] = 50,
    *,
    archived: Annotated[bool, typer.Option("--archived", help="Only archived ones.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Archived ones too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List coupons in the order of their ids."""
    part = None if name is None else normalize_name(name)
    if part is not None and (fault := part_fault(part)):
        raise typer.BadParameter(fault)
    with open_for_command("coupon") as common:
        filters = CouponFilter(part, state, None if everything else archived, now_ms())
        found = resources.coupon_service(common).list_page(filters, after, limit)
    if as_json:
        print_json([_fields(coupon) for coupon in found])
    else:
        print_rows(_HEADERS, map(_row, found))


@app.command()
def show(coupon_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Show a coupon with its counters."""
    with open_for_command("coupon") as common:
        found = resources.coupon_service(common).get(coupon_id)
    _print(found, as_json=as_json)


@app.command()
def watch(coupon_id: _IdArgument, every: EveryOption = 1.0, *, as_json: JsonOption = False) -> None:
    """Show a coupon again whenever it has changed, until it is closed, or sold out with nothing held or on standby."""
    with open_for_command("coupon") as common:
        seen = follow(partial(resources.coupon_service(common).get, coupon_id), every, _is_over)
        if sys.stdout.isatty() and not as_json:
            with Live(auto_refresh=False) as live:
                for coupon in seen:
                    live.update(make_table(_HEADERS, [_row(coupon)]), refresh=True)
        else:
            for coupon in seen:
                if not (print_json(_fields(coupon)) if as_json else print_rows(_HEADERS, [_row(coupon)])):
                    break


@app.command()
def change(
    coupon_id: _IdArgument,
    name: Annotated[str | None, typer.Option(help="The new name.", parser=_parse_name, metavar="NAME")] = None,
    quantity: Annotated[int | None, typer.Option(min=1, max=MAX_QUANTITY, help=_QUANTITY_HELP)] = None,
    waitlist: Annotated[int | None, typer.Option(min=0, max=MAX_QUANTITY, help=_WAITLIST_HELP)] = None,
    opens_at: Annotated[str | None, typer.Option(help=f"{_OPENS_HELP} `{_NEVER}`: at once.")] = None,
    closes_at: Annotated[str | None, typer.Option(help=f"{_CLOSES_HELP} `{_NEVER}`: no end.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Change the name, the numbers or the window of a coupon. What is not named stays as it is.

    A new quantity applies to all undecided requests; seats that it adds go to requests on standby first.
    """
    given: dict[str, Any] = {"name": name, "quantity": quantity, "waitlist": waitlist}
    values = {field: value for field, value in given.items() if value is not None}
    for field, text in (("opens_at_ms", opens_at), ("closes_at_ms", closes_at)):
        if text is not None:
            values[field] = _parse_time(text)
    if not values:
        raise typer.BadParameter("Name what to change: see --help.")
    _change(coupon_id, values, as_json=as_json)


@app.command()
def pause(coupon_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Refuse new requests; accepted ones are issued. `open` ends the pause."""
    _change(coupon_id, {"override": Override.PAUSED}, as_json=as_json)


@app.command("open")
def reopen(coupon_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """End a pause or a close: the window applies again."""
    _change(coupon_id, {"override": Override.NONE}, as_json=as_json)


@app.command()
def close(coupon_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Refuse new requests, and accepted ones that are not decided yet. `open` ends the close."""
    _change(coupon_id, {"override": Override.CLOSED}, as_json=as_json)


@app.command()
def archive(coupon_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Leave a closed coupon out of lists; it stays closed until `unarchive`."""
    _change(coupon_id, {"archived_at_ms": now_ms()}, as_json=as_json)


@app.command()
def unarchive(coupon_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Show an archived coupon in lists again."""
    _change(coupon_id, {"archived_at_ms": None}, as_json=as_json)


def _is_over(coupon: Coupon) -> bool:
    """Return whether nothing happens any more: closed, or all are issued and nobody waits."""
    if coupon.held or coupon.standby:
        return False
    return coupon.state(now_ms()) in (CouponState.CLOSED, CouponState.SOLD_OUT)


def _change(coupon_id: int, values: dict[str, Any], *, as_json: bool) -> None:
    with open_for_command("coupon") as common:
        changed = resources.coupon_service(common).change(coupon_id, values)
    _print(changed, as_json=as_json)


def _print(coupon: Coupon, *, as_json: bool) -> None:
    if as_json:
        print_json(_fields(coupon))
        return
    print_rows(
        ("What", "Value"),
        [
            ("id", coupon.id),
            ("name", coupon.name),
            ("state", coupon.state(now_ms())),
            *((field, getattr(coupon, field)) for field in ("quantity", "waitlist", "issued", "held", "standby")),
            ("remaining", coupon.remaining),
            ("opens at", show_time(to_optional_datetime(coupon.opens_at_ms))),
            ("closes at", show_time(to_optional_datetime(coupon.closes_at_ms))),
            ("created at", show_time(to_optional_datetime(coupon.created_at_ms))),
            ("updated at", show_time(to_optional_datetime(coupon.updated_at_ms))),
            ("archived at", show_time(to_optional_datetime(coupon.archived_at_ms))),
        ],
    )


def _fields(coupon: Coupon) -> dict[str, Any]:
    """Return the fields of JSON; times are milliseconds since 1970 UTC."""
    return {**coupon._asdict(), "state": coupon.state(now_ms()), "remaining": coupon.remaining}


def _row(coupon: Coupon) -> tuple[Cell, ...]:
    return (
        coupon.id,
        coupon.state(now_ms()),
        coupon.quantity,
        coupon.issued,
        coupon.held,
        coupon.standby,
        coupon.remaining,
        coupon.name,
    )
