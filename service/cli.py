"""The console script `coupons`: thin over the use cases."""

import typer

from service import config, log, start
from service.store import engine, schema
from service.stream import topics

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


if __name__ == "__main__":
    app()
