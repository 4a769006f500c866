"""What Alembic runs for each command: the connection comes from service.store.schema, never from a file."""

from alembic import context

from service.store.tables import NAMES

context.configure(connection=context.config.attributes["connection"], target_metadata=NAMES)
with context.begin_transaction():
    context.run_migrations()
