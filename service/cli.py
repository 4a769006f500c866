"""The console script `coupons`."""

from pathlib import Path
from typing import Annotated

import typer

from service import config, resources, startup
from service.commands import dead_letters, gate, keys, log, reports, request_id_keys
from service.commands.console import CouponOption, JsonOption, open_for_command, print_json, print_line, print_rows
from service.limits import MAX_SAFE_ID
from service.verification.history import read_history

app = typer.Typer(help="Coupons, first come, first served.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(keys.app, name="keys")
app.add_typer(gate.app, name="gate")
app.add_typer(log.app, name="log")
app.add_typer(request_id_keys.app, name="request-id-keys")
app.command()(reports.report)
app.command()(reports.export)
_HISTORY_HELP = "Answers that clients received, one JSON object a line."


@app.command()
def migrate() -> None:
    """Upgrade the database schema to the newest revision, grant the service its rights and create the topics."""
    with startup.exit_on_error():
        resources.migrate(startup.configure_process(config.load_without_keys))


@app.command()
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
        checks = resources.verifier(common).verify(read_history(history) if history else None, coupon)
    ok = all(check.ok for check in checks)
    if as_json:
        fields = [
            {"promise": c.promise, "what": c.what, "ok": c.ok, "numbers": c.numbers, "details": c.details}
            for c in checks
        ]
        print_json({"ok": ok, "checks": fields})
    else:
        rows = []
        for check in checks:
            numbers = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in check.numbers.items())
            rows.append((check.promise, check.what, check.ok, "; ".join((numbers, *check.details))))
        print_rows(("Promise", "Check", "Result", "Numbers"), rows, wrap_last=True)
    raise typer.Exit(0 if ok else 1)


@app.command()
def token(
    user: Annotated[int, typer.Argument(min=1, max=MAX_SAFE_ID, help="The user's id.")],
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long the token is valid.")] = 60,
) -> None:
    """Print a token for a user, signed with JWT_SECRET: for tries and tests of the local stack."""
    with startup.exit_on_error():
        print_line(resources.sign_token(startup.configure_process(), user, minutes * 60))


if __name__ == "__main__":
    app()
