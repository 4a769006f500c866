"""The schema of the first release: tables, the triggers that count, the function that probes writes.

The statements are in the .sql files beside this one. A released revision never changes:
tests/integration/test_migrations.py compares a hash of its files.
"""

from pathlib import Path

from alembic import op

revision = "0001_schema"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for part in ("tables", "counting", "write_probe"):
        statements = Path(__file__).with_name(f"0001_{part}.sql").read_text()
        op.get_bind().exec_driver_sql(statements)


def downgrade() -> None:
    op.execute("DROP FUNCTION failing_requests(jsonb)")
    tables = "outbox, dead_letter_actions, dead_letters, retries, requests, lost_ranges, offsets, logs"
    op.execute(f"DROP TABLE {tables}, coupon_changes, idempotency_keys, coupons")
    op.execute("DROP TABLE request_id_keys, write_checks, verifications, api_keys, failed_attempts, notices")
    op.execute("DROP FUNCTION count_inserted_requests(), count_updated_requests(), keep_issued_requests()")
