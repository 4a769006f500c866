"""A trial keeps its plans: made anew for each request they add two thirds to what it takes.

A plan kept from when the tables were small must not read all of them later on, so it may use indexes only.
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_FUNCTION = "ALTER FUNCTION failing_requests(jsonb)"


def upgrade() -> None:
    op.execute(f"{_FUNCTION} SET plan_cache_mode TO auto SET enable_seqscan TO off")


def downgrade() -> None:
    op.execute(f"{_FUNCTION} RESET plan_cache_mode RESET enable_seqscan")
