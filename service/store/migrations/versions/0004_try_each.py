"""A function that tells which requests cannot be issued: each is written alone and taken back, in one round trip."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: A raised SQLSTATE of our own ends the block of a row that was written, and takes the row back. A cancelled statement
#: is no row's failure: `others` does not catch it.
_FAILING = """
CREATE FUNCTION failing_requests(tries jsonb)
RETURNS TABLE (number int, code text, message text, detail text) LANGUAGE plpgsql AS $$
DECLARE
    try jsonb;
BEGIN
    number := -1;
    FOR try IN SELECT jsonb_array_elements(tries) LOOP
        number := number + 1;
        BEGIN
            IF (try -> 'is_new')::boolean THEN
                INSERT INTO requests SELECT * FROM jsonb_populate_record(NULL::requests, try -> 'row');
            ELSE
                UPDATE requests
                SET state = new.state, code = new.code, sequence = new.sequence, decided_at = new.decided_at
                FROM jsonb_populate_record(NULL::requests, try -> 'row') AS new
                WHERE requests.log_id = new.log_id AND requests.partition = new.partition
                  AND requests."offset" = new."offset";
            END IF;
            IF try ->> 'also' IS NOT NULL THEN
                EXECUTE try ->> 'also';
            END IF;
            RAISE EXCEPTION USING ERRCODE = 'CU000';
        EXCEPTION
            WHEN SQLSTATE 'CU000' THEN
                CONTINUE;
            WHEN others THEN
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
                RETURN NEXT;
        END;
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.execute(_FAILING)


def downgrade() -> None:
    op.execute("DROP FUNCTION failing_requests(jsonb)")
