"""`coupons dead-letters`: find them, bring them back, put them away."""

from typing import Annotated

import typer

from service import resources
from service.commands.console import CouponId, open_for_command, print_result
from service.domain.dead_letter import DeadLetter, DeadLetterFilter, DeadLetterState
from service.domain.errors import NotFound
from service.domain.request import ReasonCode
from service.store import dead_letter_actions
from service.store.engine import in_transaction
from service.usecases.replay import ReplayResult

app = typer.Typer(help="What died: find it, bring it back, put it away.", no_args_is_help=True)
_DOOR = "cli"
_Code = Annotated[ReasonCode | None, typer.Option(help="dead for this reason only: poison or exhausted")]
_Id = Annotated[int, typer.Argument(help="the dead letter's id")]
_AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.command("list")
def page(
    coupon: CouponId = None,
    code: _Code = None,
    state: Annotated[DeadLetterState | None, typer.Option(help="new, replayed or discarded only")] = None,
    before: Annotated[int | None, typer.Option(help="go on below this id")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500)] = 50,
    *,
    as_json: _AsJson = False,
) -> None:
    """List dead letters, the newest first."""
    with open_for_command("dead-letters") as common, in_transaction(common.engine) as tx:
        found = dead_letter_actions.page(tx, DeadLetterFilter(coupon, code, state), before, limit)
    print_result(found, map(_line, found), as_json=as_json)


@app.command()
def show(letter_id: _Id, *, as_json: _AsJson = False) -> None:
    """Show one with its raw record and what was done with it."""
    with open_for_command("dead-letters") as common:
        with in_transaction(common.engine) as tx:
            letter, actions = dead_letter_actions.get(tx, letter_id), dead_letter_actions.actions(tx, letter_id)
        if letter is None:
            raise NotFound("unknown_dead_letter", f"there is no dead letter {letter_id}")
    done = [f"{one.action} by {one.via}: {one.state or ''} {one.code or ''}".rstrip(": ") for one in actions]
    record = [f"first error: {letter.first_error}", f"key: {letter.raw.key!r}", f"value: {letter.raw.value!r}"]
    print_result({"letter": letter, "actions": actions}, [_line(letter), *record, *done], as_json=as_json)


@app.command()
def replay(
    letter_id: Annotated[int | None, typer.Argument(help="one dead letter; none: all that the options mean")] = None,
    coupon: CouponId = None,
    code: _Code = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would come of it")] = False,
    as_json: _AsJson = False,
) -> None:
    """Bring back one, or the new ones in the order of their places; whether each may have a coupon is decided anew."""
    if letter_id is not None and (dry_run or coupon or code):
        raise typer.BadParameter("give an id, or options that choose among all")
    with open_for_command("dead-letters") as common:
        desk = resources.dead_letter_service(common, _DOOR)
        if letter_id is not None:
            done = [desk.replay(letter_id)]
        else:
            done = desk.replay_many(DeadLetterFilter(coupon, code), limit, dry_run=dry_run)
    print_result({"dry_run": dry_run, "replayed": done}, map(_outcome, done), as_json=as_json)


@app.command()
def discard(letter_id: _Id) -> None:
    """Put one away for good; its request stays dead."""
    with open_for_command("dead-letters") as common:
        resources.dead_letter_service(common, _DOOR).discard(letter_id)
    print_result(None, [f"{letter_id} discarded"], as_json=False)


def _line(dead_letter: DeadLetter) -> str:
    place = (
        f"{dead_letter.raw.log_position.partition}/{dead_letter.raw.log_position.offset}"
        if dead_letter.log_id is not None
        else "foreign"
    )
    whose = f"coupon {dead_letter.coupon_id} user {dead_letter.user_id}" if dead_letter.request_id else "unreadable"
    error = dead_letter.last_error.partition("\n")[0]
    return f"{dead_letter.id}\t{dead_letter.state}\t{dead_letter.code}\t{place}\t{whose}\t{error[:80]}"


def _outcome(done: ReplayResult) -> str:
    return f"{done.dead_letter_id}\t{done.state or 'not replayed'}\t{done.why or done.code or ''}".rstrip()
