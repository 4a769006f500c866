"""The triggers count with the rights of the schema's owner, so that no other role needs to change a counter.

Their search_path is fixed: a table of the same name in another schema would be counted in place of ours. Nobody else
may use them, because a trigger of one's own on a table of one's own would let them count whatever is inserted there.
"""

from alembic import op
from sqlalchemy import text

revision = "0002_counting_rights"
down_revision = "0001_schema"
branch_labels = None
depends_on = None

_FUNCTIONS = ("count_inserted_requests()", "count_updated_requests()")


def upgrade() -> None:
    connection = op.get_bind()
    own = connection.dialect.identifier_preparer.quote(connection.execute(text("SELECT current_schema()")).scalar_one())
    for function in _FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} SECURITY DEFINER SET search_path = pg_catalog, {own}, pg_temp")
        op.execute(f"REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC")


def downgrade() -> None:
    for function in _FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} SECURITY INVOKER RESET search_path")
        op.execute(f"GRANT EXECUTE ON FUNCTION {function} TO PUBLIC")
