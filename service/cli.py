"""The console script `coupons`: thin over the use cases."""

from pathlib import Path
from typing import Annotated

import typer

from service import resources, startup
from service.commands import dead_letters, gate
from service.commands.console import CouponId, open_for_command, print_result, require_coupon
from service.store import engine, schema
from service.stream import topics
from service.verification.history import read_history
from service.verification.verify import Check

app = typer.Typer(help="Coupons, first come, first served.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(gate.app, name="gate")
_HISTORY = "what clients were told, one JSON object a line"


@app.command()
def migrate() -> None:
    """Bring the database to the newest revision and make the topics."""
    with startup.exit_on_error():
        settings = startup.configure_process()
        schema.migrate(engine.build(settings.database_url, "migrate", connections=1))
        topics.ensure_topics(settings)


@app.command()
def verify(
    coupon: CouponId = None,
    history: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help=_HISTORY)] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Prove the promises from the log, the database and, if given, what clients were told; exit status 1 if not."""
    with open_for_command("verify") as common:
        if coupon is not None:
            require_coupon(common, coupon)
        checks = resources.verifier(common).verify(read_history(history) if history else None, coupon)
    told = [{"promise": c.promise, "what": c.what, "ok": c.ok, "numbers": c.numbers} for c in checks]
    ok = all(check.ok for check in checks)
    print_result({"ok": ok, "checks": told}, map(_line, checks), as_json=as_json)
    raise typer.Exit(0 if ok else 1)


def _line(check: Check) -> str:
    numbers = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in check.numbers.items())
    return f"{'ok    ' if check.ok else 'BROKEN'} {check.promise} {check.what}: {numbers}"


if __name__ == "__main__":
    app()
