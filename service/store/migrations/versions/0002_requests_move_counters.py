"""The database counts: triggers on requests move a coupon's counters and check its sequences.

So the counters are right and their CHECK binds whoever writes the requests. One UPDATE per statement, not per row.
What was issued cannot be moved to another coupon, user, place or sequence behind the counters' back.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

#: per coupon, what the rows of a statement add to the counters, and the sequences they give out
_COUNT = """
CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    coupons_touched bigint;
    coupons_moved bigint;
BEGIN
    WITH delta AS (
        SELECT coupon_id, sum(issued) AS issued, sum(held) AS held,
               min(sequence) AS first, max(sequence) AS last, count(DISTINCT sequence) AS sequences
        FROM ({changes}) AS change
        GROUP BY coupon_id
        HAVING bool_or(issued <> 0 OR held <> 0)
    ), moved AS (
        UPDATE coupons SET issued = coupons.issued + delta.issued, held = coupons.held + delta.held
        FROM delta
        WHERE coupons.id = delta.coupon_id
          AND delta.issued = delta.sequences
          AND (delta.issued = 0 OR (delta.first = coupons.issued + 1 AND delta.last = coupons.issued + delta.issued))
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM delta), (SELECT count(*) FROM moved) INTO coupons_touched, coupons_moved;
    IF coupons_touched <> coupons_moved THEN
        RAISE EXCEPTION 'requests of an unknown coupon, or sequences that do not follow those issued'
            USING ERRCODE = 'check_violation', TABLE = 'requests', CONSTRAINT = 'requests_follow_counters';
    END IF;
    RETURN NULL;
END $$
"""

_INSERTED = """
    SELECT coupon_id, (state = 'issued')::int AS issued, (state = 'retrying')::int AS held, sequence
    FROM new_rows WHERE state IN ('issued', 'retrying')
"""

_UPDATED = """
    SELECT n.coupon_id, (n.state = 'issued')::int - (o.state = 'issued')::int AS issued,
           (n.state = 'retrying')::int - (o.state = 'retrying')::int AS held,
           CASE WHEN o.state <> 'issued' THEN n.sequence END AS sequence
    FROM new_rows AS n JOIN old_rows AS o USING (log_id, partition, "offset")
    WHERE n.state <> o.state
"""

_KEPT = """
CREATE FUNCTION keep_issued_requests() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was issued stays as it was issued'
        USING ERRCODE = 'check_violation', TABLE = 'requests', CONSTRAINT = 'requests_issued_stay';
END $$
"""


def upgrade() -> None:
    op.execute(_COUNT.format(function="count_inserted_requests", changes=_INSERTED))
    op.execute(_COUNT.format(function="count_updated_requests", changes=_UPDATED))
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
