"""The first tables: coupons, the log's offsets, requests and what waits for Celery."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "coupons",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("waitlist", sa.Integer(), server_default="0", nullable=False),
        sa.Column("issued", sa.Integer(), server_default="0", nullable=False),
        sa.Column("held", sa.Integer(), server_default="0", nullable=False),
        sa.Column("opens_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closes_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("override", sa.String(), server_default="none", nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("override IN ('none', 'paused', 'closed')", name=op.f("coupons_override_check")),
        sa.CheckConstraint("closes_at > opens_at", name=op.f("coupons_window_check")),
        sa.CheckConstraint(
            "issued >= 0 AND held >= 0 AND issued + held <= quantity", name=op.f("coupons_never_over_issued_check")
        ),
        sa.CheckConstraint("quantity >= 1", name=op.f("coupons_quantity_check")),
        sa.CheckConstraint("waitlist >= 0", name=op.f("coupons_waitlist_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("coupons_pkey")),
        postgresql_with={"fillfactor": "50"},
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("log_id", sa.SmallInteger(), nullable=True),
        sa.Column("partition", sa.Integer(), nullable=True),
        sa.Column("offset", sa.BigInteger(), nullable=True),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("headers", postgresql.JSONB(), nullable=False),
        sa.Column("appended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("coupon_id", sa.BigInteger(), nullable=True),
        sa.Column("user_id", sa.BigInteger(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("first_error", sa.String(), nullable=False),
        sa.Column("error_kind", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("state", sa.String(), server_default="new", nullable=False),
        sa.Column("dead_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("forwarded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dlt_partition", sa.Integer(), nullable=True),
        sa.Column("dlt_offset", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('new', 'replayed', 'discarded')", name=op.f("dead_letters_state_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("dead_letters_pkey")),
    )
    op.create_index("dead_letters_origin", "dead_letters", ["log_id", "partition", "offset"], unique=True)
    op.create_index(
        "dead_letters_foreign",
        "dead_letters",
        ["dlt_partition", "dlt_offset", "appended_at"],
        unique=True,
        postgresql_where=sa.text("log_id IS NULL"),
    )
    op.create_index(
        "dead_letters_unforwarded",
        "dead_letters",
        ["id"],
        unique=False,
        postgresql_where=sa.text("forwarded_at IS NULL"),
    )
    op.create_table(
        "handoffs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("log_id", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("first_offset", sa.BigInteger(), nullable=False),
        sa.Column("last_offset", sa.BigInteger(), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivery", sa.Uuid(), nullable=True),
        sa.CheckConstraint("kind IN ('notify', 'gate')", name=op.f("handoffs_kind_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("handoffs_pkey")),
    )
    op.create_index("handoffs_due", "handoffs", ["kind", "next_attempt_at"], unique=False)
    op.create_index(
        "handoffs_delivery", "handoffs", ["delivery"], unique=False, postgresql_where=sa.text("delivery IS NOT NULL")
    )
    op.create_table(
        "logs",
        sa.Column("id", sa.SmallInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("topic_id", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("logs_pkey")),
        sa.UniqueConstraint("topic_id", name=op.f("logs_topic_id_key")),
    )
    op.create_table(
        "requests",
        sa.Column("log_id", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("coupon_id", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'issued') = (sequence IS NOT NULL)", name=op.f("requests_sequence_check")),
        sa.CheckConstraint(
            "(state IN ('issued', 'refused', 'dead')) = (decided_at IS NOT NULL)",
            name=op.f("requests_decided_at_check"),
        ),
        sa.CheckConstraint("(state IN ('refused', 'dead')) = (code IS NOT NULL)", name=op.f("requests_code_check")),
        sa.CheckConstraint(
            "state IN ('issued', 'retrying', 'standby') OR state IN ('refused', 'dead')",
            name=op.f("requests_state_check"),
        ),
        sa.PrimaryKeyConstraint("log_id", "partition", "offset", name=op.f("requests_pkey")),
    )
    op.create_index(
        "requests_ended",
        "requests",
        ["coupon_id", "user_id"],
        unique=False,
        postgresql_where=sa.text("NOT (state IN ('issued', 'retrying', 'standby'))"),
    )
    op.create_index(
        "requests_one_live",
        "requests",
        ["coupon_id", "user_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('issued', 'retrying', 'standby')"),
    )
    op.create_index(
        "requests_standby",
        "requests",
        ["coupon_id", "partition", "offset"],
        unique=False,
        postgresql_where=sa.text("state = 'standby'"),
    )
    op.create_table(
        "retries",
        sa.Column("log_id", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("headers", postgresql.JSONB(), nullable=False),
        sa.Column("appended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("first_error", sa.String(), nullable=False),
        sa.Column("error_kind", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("log_id", "partition", "offset", name=op.f("retries_pkey")),
    )
    op.create_index("retries_due", "retries", ["next_attempt_at"], unique=False)
    op.create_table(
        "offsets",
        sa.Column("log_id", sa.SmallInteger(), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.Column("passed_at", sa.DateTime(timezone=True), server_default=sa.text("'epoch'"), nullable=False),
        sa.ForeignKeyConstraint(["log_id"], ["logs.id"], name=op.f("offsets_log_id_fkey")),
        sa.PrimaryKeyConstraint("log_id", "partition", name=op.f("offsets_pkey")),
        postgresql_with={"fillfactor": "50"},
    )


def downgrade() -> None:
    for table in ("handoffs", "dead_letters", "retries", "requests", "offsets", "logs", "coupons"):
        op.drop_table(table)
