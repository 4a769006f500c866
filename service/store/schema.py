"""Brings the database's schema to the newest revision, and tells whether it is there."""

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from service.domain.errors import Misconfigured
from service.store.engine import in_transaction

#: an arbitrary number that all migrating processes agree on
_ADVISORY_LOCK = 4_217_001


def migrate(engine: Engine) -> None:
    """Upgrades to the newest revision; several at once wait for each other. Raises Unavailable."""
    with in_transaction(engine) as connection:
        connection.execute(text("SET LOCAL lock_timeout = '30s'"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
        command.upgrade(_config(connection), "head")


def require_current(tx: Connection) -> None:
    """Raises Misconfigured when the database is not at the revision this code was written for."""
    found = MigrationContext.configure(tx).get_current_revision()
    wanted = ScriptDirectory.from_config(_config(tx)).get_current_head()
    if found != wanted:
        raise Misconfigured([f"the database's schema is at {found}, {wanted} is needed: run `coupons migrate`"])


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", "service.store:migrations")
    config.attributes["connection"] = connection
    return config
