"""`coupons request`: the state of one request, and what happened to it."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated

import typer

from service import resources
from service.commands.console import Cell, JsonOption, open_for_command, print_json, print_rows, show_time
from service.commands.following import EveryOption, follow
from service.domain.request import FINAL_STATES
from service.domain.request_history import HistoryEvent, HistoryEventKind
from service.timestamps import to_datetime, to_optional_datetime
from service.usecases.lookup import RequestStatus

_LINE_END = "\n"
app = typer.Typer(help="Requests for coupons, by the request id that the 202 returned.", no_args_is_help=True)
_IdArgument = Annotated[str, typer.Argument(help="The request id.")]


@app.command()
def show(request_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Show the state of a request."""
    with open_for_command("request") as common:
        found = resources.lookup(common).find(request_id)
    if as_json:
        print_json(found)
    else:
        print_rows(("What", "Value"), _rows(found))


@app.command()
def watch(request_id: _IdArgument, every: EveryOption = 1.0, *, as_json: JsonOption = False) -> None:
    """Print the state of a request whenever it changes, until it is final."""
    with open_for_command("request") as common:
        read = partial(resources.lookup(common).find, request_id)
        for found in follow(read, every, lambda one: one.state in FINAL_STATES):
            row = found.state, found.code or "-", found.attempts
            if not (print_json(found) if as_json else print_rows(("State", "Code", "Attempts"), [row])):
                break


@app.command()
def history(request_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Show what happened to a request: the record, the attempts, the decision, its dead letter, notices about it."""
    with open_for_command("request") as common:
        found = resources.lookup(common).find(request_id)
        shown = resources.request_histories(common).read(found, with_log=True)
    if as_json:
        print_json({"request": shown.request, "events": [_fields(event) for event in shown.events]})
    else:
        rows = [(show_time(event.at), event.kind, _describe(event)) for event in shown.events]
        print_rows(("Time", "Event", "Details"), rows, wrap_last=True)


def _rows(found: RequestStatus) -> Iterator[tuple[str, Cell]]:
    yield "request id", found.request_id
    yield "coupon", found.coupon_id
    yield "user", found.user_id
    yield "state", found.state
    yield "code", found.code or "-"
    yield "sequence", found.sequence or "-"
    yield "attempts", found.attempts
    yield "partition/offset", f"{found.partition}/{'not known' if found.offset is None else found.offset}"
    yield "requested at", show_time(to_datetime(found.requested_at_ms))
    yield "decided at", show_time(to_optional_datetime(found.decided_at_ms))


def _fields(event: HistoryEvent) -> dict[str, object]:
    return {name: value for name, value in event._asdict().items() if value is not None or name == "at"}


def _describe(event: HistoryEvent) -> str:
    """Return the details of an event in words."""
    place = "" if event.partition is None else f"partition {event.partition}, offset {event.offset}"
    number = f"as number {event.sequence}" if event.sequence else ""
    result = " ".join(filter(None, (event.state, event.code, number)))
    dead_letter = f"dead letter {event.dead_letter_id}" if event.dead_letter_id else ""
    match event.kind:
        case HistoryEventKind.ATTEMPT_FAILED:
            return f"attempt {event.attempt}: {(event.error or '').partition(_LINE_END)[0]}"
        case HistoryEventKind.REPLAYED | HistoryEventKind.DISCARDED:
            return ", ".join(filter(None, (f"by {event.by}", dead_letter, result)))
        case HistoryEventKind.NOTICE_FAILED | HistoryEventKind.NOTICE_DELIVERED:
            outcome = event.error if event.kind is HistoryEventKind.NOTICE_FAILED else f"status {event.status}"
            return f"delivery {event.delivery_id}, attempt {event.attempt}: {outcome}"
        case _:
            return ", ".join(filter(None, (result, dead_letter, place)))
