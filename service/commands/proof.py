"""`coupons verify`: the proof of the promises."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from service import resources
from service.commands.console import CouponOption, JsonOption, Mark, open_for_command, print_json, print_rows
from service.verification.history import read_history
from service.verification.progress import OnProgress, ProofStep
from service.verification.verify import Check

_HISTORY_HELP = "Answers that clients received, one JSON object a line."


def verify(
    coupon: CouponOption = None,
    history: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=_HISTORY_HELP)] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Verify P1 to P5. Reads the whole log, the database and, if given, the answers that clients received.

    The exit status is 1 if a promise is broken.
    """
    with open_for_command("verify") as common:
        if coupon is not None:
            resources.coupon_service(common).get(coupon)  # raises NotFound
        answers = read_history(history) if history else None
        with _shown_progress() as on_progress:
            checks = resources.verifier(common).verify(answers, coupon, on_progress=on_progress)
    ok = all(check.ok for check in checks)
    if as_json:
        fields = [
            {"promise": c.promise, "what": c.what, "ok": c.ok, "numbers": c.numbers, "details": c.details}
            for c in checks
        ]
        print_json({"ok": ok, "checks": fields})
    else:
        print_rows(("Promise", "Check", "Result", "Numbers"), map(_row, checks), wrap_last=True)
    raise typer.Exit(0 if ok else 1)


def _row(check: Check) -> tuple[str, str, Mark, str]:
    numbers = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in check.numbers.items())
    result = Mark.OK if check.ok else Mark.BROKEN
    return check.promise, check.what, result, "; ".join((numbers, *check.details))


@contextmanager
def _shown_progress() -> Iterator[OnProgress | None]:
    """Show a bar on standard error while the proof runs, and remove it at the end; None if that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task("", total=None)

        def show(step: ProofStep, done: int, total: int) -> None:
            bars.update(bar, description=step.value, completed=done, total=total)

        yield show
