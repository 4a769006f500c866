"""The database counts: triggers on requests move a coupon's counters and check its sequences.

So the counters are right and their CHECK binds whoever writes the requests. One UPDATE per statement, not per row.
What was issued cannot be moved to another coupon, user, place or sequence behind the counters' back.
"""

from alembic import op

from service.store.migrations.counting import functions

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

#: a coupon's counters, and the state of a request that each counts
_COUNTERS = {"issued": "issued", "held": "retrying"}

_KEPT = """
CREATE FUNCTION keep_issued_requests() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was issued stays as it was issued'
        USING ERRCODE = 'check_violation', TABLE = 'requests', CONSTRAINT = 'requests_issued_stay';
END $$
"""


def upgrade() -> None:
    for statement in functions(_COUNTERS):
        op.execute(statement)
    op.execute(
        "CREATE TRIGGER requests_inserted AFTER INSERT ON requests"
        " REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_requests()"
    )
    op.execute(
        "CREATE TRIGGER requests_updated AFTER UPDATE ON requests REFERENCING OLD TABLE AS old_rows"
        " NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_updated_requests()"
    )
    op.execute(_KEPT)
    op.execute(
        'CREATE TRIGGER requests_issued_stay BEFORE UPDATE OF log_id, partition, "offset", coupon_id, user_id,'
        " state, sequence ON requests FOR EACH ROW WHEN (old.state = 'issued') EXECUTE FUNCTION keep_issued_requests()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER requests_issued_stay ON requests")
    op.execute("DROP FUNCTION keep_issued_requests()")
    op.execute("DROP TRIGGER requests_updated ON requests")
    op.execute("DROP TRIGGER requests_inserted ON requests")
    op.execute("DROP FUNCTION count_updated_requests()")
    op.execute("DROP FUNCTION count_inserted_requests()")
