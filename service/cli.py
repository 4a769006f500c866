"""The console script `coupons`."""

from typing import Annotated

import typer

from service import config, resources, startup
from service.commands import coupons, dead_letters, doctor, gate, keys, log, proof, request_id_keys, requests, topics
from service.commands.console import JsonOption, print_json, print_line
from service.limits import MAX_SAFE_ID

app = typer.Typer(help="Coupons, first come, first served.", no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(coupons.app, name="coupon")
app.add_typer(requests.app, name="request")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(keys.app, name="keys")
app.add_typer(gate.app, name="gate")
app.add_typer(log.app, name="log")
app.add_typer(request_id_keys.app, name="request-id-keys")
app.add_typer(topics.app, name="topics")
app.command()(proof.verify)
app.command()(doctor.doctor)


@app.command()
def migrate(*, as_json: JsonOption = False) -> None:
    """Upgrade the database schema to the newest revision, grant the service its rights and create missing topics."""
    with startup.exit_on_error():
        done = resources.migrate(startup.configure_process(config.load_without_keys))
    if as_json:
        print_json(done)
    else:
        print_line(f"schema: revision {done.revision}; topics created: {', '.join(done.created_topics) or 'none'}")


@app.command()
def token(
    user: Annotated[int, typer.Argument(min=1, max=MAX_SAFE_ID, help="The user's id.")],
    minutes: Annotated[int, typer.Option(min=1, max=1440, help="How long the token is valid.")] = 60,
    *,
    as_json: JsonOption = False,
) -> None:
    """Print a token for a user, signed with JWT_SECRET: for tries and tests of the local stack."""
    with startup.exit_on_error():
        signed = resources.sign_token(startup.configure_process(), user, minutes * 60)
    if as_json:
        print_json({"token": signed, "user_id": user, "valid_seconds": minutes * 60})
    else:
        print_line(signed)


if __name__ == "__main__":
    app()
