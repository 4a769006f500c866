"""A trial keeps its plans: to make them anew for each request takes as long as the trial itself.

One kept from when the tables were small must not read all of them later on, so they are looked into by indexes only.
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
