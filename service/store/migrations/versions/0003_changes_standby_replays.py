"""Coupons change, standby is counted and keeps its record, dead letters have a history.

The triggers of 0002 are replaced by ones that move the counter of standby too.
"""

import sqlalchemy as sa
from alembic import op

from service.store.migrations.counting import functions

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COUNTERS_BEFORE = {"issued": "issued", "held": "retrying"}
_COUNTERS = _COUNTERS_BEFORE | {"standby": "standby"}
_UNTRIED = ("next_attempt_at", "first_error", "error_kind", "error_message")
#: who is on standby had no raw record yet: one that says the same is made from the request's row
_KEEP_STANDBY = """
    INSERT INTO retries (log_id, partition, "offset", key, value, headers, appended_at, attempts)
    SELECT log_id, partition, "offset", convert_to(coupon_id::text, 'UTF8'),
           convert_to(format('{"userId":%s,"couponId":%s,"requestTimeMillis":%s}', user_id, coupon_id,
                             round(extract(epoch FROM requested_at) * 1000)), 'UTF8'),
           jsonb_build_array(jsonb_build_array(
               'request_id', translate(encode(convert_to(request_id, 'UTF8'), 'base64'), E'\\n', ''))),
           requested_at, 0
    FROM requests WHERE state = 'standby'
    ON CONFLICT DO NOTHING
"""


def upgrade() -> None:
    op.add_column("coupons", sa.Column("standby", sa.Integer(), server_default="0", nullable=False))
    op.add_column("coupons", sa.Column("version", sa.Integer(), server_default="0", nullable=False))
    op.create_check_constraint(op.f("coupons_standby_check"), "coupons", "standby >= 0")
    op.execute(
        "UPDATE coupons SET standby = waiting.standby FROM (SELECT coupon_id, count(*) AS standby FROM requests"
        " WHERE state = 'standby' GROUP BY coupon_id) AS waiting WHERE waiting.coupon_id = coupons.id"
    )
    _index_standby(["coupon_id", "log_id", "partition", "offset"])
    op.create_index("coupons_standby", "coupons", ["id"], postgresql_where=sa.text("standby > 0"))
    for statement in functions(_COUNTERS):
        op.execute(statement)
    for column in _UNTRIED:
        op.alter_column("retries", column, nullable=True)
    op.execute(_KEEP_STANDBY)
    _create_coupon_changes()
    _create_dead_letter_actions()


def _index_standby(columns: list[str]) -> None:
    op.drop_index("requests_standby", "requests")
    op.create_index("requests_standby", "requests", columns, postgresql_where=sa.text("state = 'standby'"))


def _create_coupon_changes() -> None:
    op.create_table(
        "coupon_changes",
        sa.Column("coupon_id", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("log_id", sa.SmallInteger(), nullable=True),
        sa.Column("partition", sa.Integer(), nullable=True),
        sa.Column("first_offset", sa.BigInteger(), nullable=True),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("waitlist", sa.Integer(), nullable=False),
        sa.Column("opens_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closes_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("override", sa.String(), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(version = 0) = (first_offset IS NULL)", name=op.f("coupon_changes_first_offset_check")),
        sa.ForeignKeyConstraint(["coupon_id"], ["coupons.id"], name=op.f("coupon_changes_coupon_id_fkey")),
        sa.PrimaryKeyConstraint("coupon_id", "version", name=op.f("coupon_changes_pkey")),
    )
    op.create_index(
        "coupon_changes_untold", "coupon_changes", ["changed_at"], postgresql_where=sa.text("told_at IS NULL")
    )
    op.execute(
        "INSERT INTO coupon_changes (coupon_id, version, quantity, waitlist, opens_at, closes_at, override, changed_at,"
        " told_at) SELECT id, 0, quantity, waitlist, opens_at, closes_at, override, created_at, created_at FROM coupons"
    )


def _create_dead_letter_actions() -> None:
    op.create_index("dead_letters_coupon", "dead_letters", ["coupon_id", "id"])
    op.create_index("dead_letters_dead_at", "dead_letters", ["dead_at"])
    op.create_table(
        "dead_letter_actions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("dead_letter_id", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("via", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=True),
        sa.Column("code", sa.String(), nullable=True),
        sa.Column("acted_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("action IN ('replayed', 'discarded')", name=op.f("dead_letter_actions_action_check")),
        sa.ForeignKeyConstraint(
            ["dead_letter_id"], ["dead_letters.id"], name=op.f("dead_letter_actions_dead_letter_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("dead_letter_actions_pkey")),
    )
    op.create_index("dead_letter_actions_letter", "dead_letter_actions", ["dead_letter_id", "id"])


def downgrade() -> None:
    op.drop_table("dead_letter_actions")
    op.drop_index("dead_letters_dead_at", "dead_letters")
    op.drop_index("dead_letters_coupon", "dead_letters")
    op.drop_table("coupon_changes")
    op.execute("DELETE FROM retries WHERE next_attempt_at IS NULL")
    for column in _UNTRIED:
        op.alter_column("retries", column, nullable=False)
    for statement in functions(_COUNTERS_BEFORE):
        op.execute(statement)
    op.drop_index("coupons_standby", "coupons")
    _index_standby(["coupon_id", "partition", "offset"])
    op.drop_column("coupons", "version")
    op.drop_column("coupons", "standby")
