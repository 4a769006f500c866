"""`coupons dead-letters`: list, show, replay and discard dead letters."""

from collections.abc import Sequence
from typing import Annotated

import typer

from service import resources
from service.commands.console import CouponOption, JsonOption, open_for_command, print_json, print_line, print_rows
from service.domain.dead_letter import DeadLetterCode, DeadLetterFilter, DeadLetterState, DeadLetterSummary
from service.limits import MAX_PAGE_SIZE, MAX_REPLAY_SIZE

app = typer.Typer(
    help="Requests that used all attempts, and records that cannot be decoded or whose decision could not be written.",
    no_args_is_help=True,
)
_CodeOption = Annotated[DeadLetterCode | None, typer.Option(help="Only this code.")]
_StateOption = Annotated[DeadLetterState | None, typer.Option(help="Only this state.")]
_IdArgument = Annotated[int, typer.Argument(help="The id of the dead letter.")]


@app.command("list")
def page(
    coupon: CouponOption = None,
    code: _CodeOption = None,
    state: _StateOption = None,
    before: Annotated[int | None, typer.Option(help="Only ids below this one: continues an earlier list.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE_SIZE)] = 50,
    *,
    as_json: JsonOption = False,
) -> None:
    """List dead letters without their records, newest first."""
    with open_for_command("dead-letters") as common:
        service = resources.dead_letter_service(common)
        found = service.list_page(DeadLetterFilter(coupon, code, state), before, limit)
    if as_json:
        print_json(found)
    else:
        _print_dead_letters(found)


@app.command()
def show(dead_letter_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Show one dead letter with its raw record and the actions taken on it."""
    with open_for_command("dead-letters") as common:
        dead_letter, actions = resources.dead_letter_service(common).get(dead_letter_id)
    if as_json:
        shown = {**dead_letter.summary._asdict(), "raw": dead_letter.raw}
        del shown["log_position"], shown["appended_at_ms"]  # the record has them
        print_json({"dead_letter": shown, "actions": actions})
        return
    _print_dead_letters([dead_letter.summary])
    print_line(f"first error: {dead_letter.summary.first_error}")
    print_line(f"key: {dead_letter.raw.key!r}")
    print_line(f"value: {dead_letter.raw.value!r}")
    for action in actions:
        print_line(f"{action.action} by {action.acted_by}: {action.state or ''} {action.code or ''}".rstrip(": "))


@app.command()
def replay(
    dead_letter_id: Annotated[
        int | None, typer.Argument(help="One dead letter. Without it: all new ones that match the options.")
    ] = None,
    coupon: CouponOption = None,
    code: _CodeOption = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_REPLAY_SIZE)] = 100,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the results without changing anything.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Replay one dead letter, or new ones in the order of their offsets; their eligibility is decided again."""
    if dead_letter_id is not None and (coupon or code):
        raise typer.BadParameter("An id cannot be combined with --coupon or --code.")
    with open_for_command("dead-letters") as common:
        service = resources.dead_letter_service(common)
        if dead_letter_id is not None:
            results = [service.replay(dead_letter_id, dry_run=dry_run)]
        else:
            results = service.replay_many(DeadLetterFilter(coupon, code), limit, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "replayed": results})
    else:
        rows = [
            (result.dead_letter_id, result.state or "not replayed", result.why or result.code or "")
            for result in results
        ]
        print_rows(("Id", "State", "Reason"), rows)


@app.command()
def discard(dead_letter_id: _IdArgument, *, as_json: JsonOption = False) -> None:
    """Discard one dead letter; its request stays dead."""
    with open_for_command("dead-letters") as common:
        resources.dead_letter_service(common).discard(dead_letter_id)
    if as_json:
        print_json({"dead_letter_id": dead_letter_id, "state": DeadLetterState.DISCARDED})
    else:
        print_line(f"{dead_letter_id} discarded")


def _print_dead_letters(found: Sequence[DeadLetterSummary]) -> None:
    rows = []
    for dead_letter in found:
        at = dead_letter.log_position
        rows.append(
            (
                dead_letter.id,
                dead_letter.state,
                dead_letter.code,
                f"{at.partition}/{at.offset}" if dead_letter.log_id is not None else "foreign",
                f"coupon {dead_letter.coupon_id} user {dead_letter.user_id}"
                if dead_letter.request_id
                else "unreadable",
                dead_letter.last_error.partition("\n")[0],
            )
        )
    print_rows(("Id", "State", "Code", "Partition/Offset", "Request", "Last error"), rows)
