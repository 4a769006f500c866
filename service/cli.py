"""The console script `coupons`: thin over the use cases."""

import json
from pathlib import Path
from typing import Annotated

import typer

from service import bootstrap, config, log, start
from service.store import engine, schema
from service.stream import topics
from service.usecases.history import read
from service.usecases.verify import Check, Verifier

app = typer.Typer(help="Coupons, first come, first served.", no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def _group() -> None:
    """Makes each function below a command of its own."""


@app.command()
def migrate() -> None:
    """Bring the database to the newest revision and make the topics."""
    with start.or_say_why():
        settings = config.load()
        log.configure(settings)
        schema.migrate(engine.build(settings.database_url, "migrate", connections=1))
        topics.ensure(settings)


@app.command()
def verify(
    history: Annotated[Path | None, typer.Option(help="what clients were told, one JSON object a line")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Prove the promises from the log, the database and, if given, what clients were told; exit status 1 if not."""
    with start.or_say_why():
        settings = config.load()
        log.configure(settings)
        common = bootstrap.build_common(settings, "verify")
        verifier = Verifier(settings, common.engine, common.log, bootstrap.request_ids(settings), common.reader)
        checks = verifier.verify(read(history) if history else None)
    print(_as_json(checks) if as_json else _as_lines(checks))  # noqa: T201  # the command's result
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)


def _as_json(checks: list[Check]) -> str:
    told = [{"promise": c.promise, "what": c.what, "ok": c.ok, "numbers": c.numbers} for c in checks]
    return json.dumps({"ok": all(check.ok for check in checks), "checks": told})


def _as_lines(checks: list[Check]) -> str:
    return "\n".join(
        f"{'ok    ' if c.ok else 'BROKEN'} {c.promise} {c.what}: "
        + ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in c.numbers.items())
        for c in checks
    )


if __name__ == "__main__":
    app()
