"""Work that was tried before goes first: it is found without a look at all that waits."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("handoffs_tried", "handoffs", ["kind", "id"], postgresql_where=sa.text("delivery IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("handoffs_tried", "handoffs")
