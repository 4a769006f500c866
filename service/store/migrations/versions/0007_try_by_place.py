"""The trial finds a row by its place: a plan kept from a join of few rows would read the whole index later on."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_FAILING = """
CREATE OR REPLACE FUNCTION failing_requests(tries jsonb)
RETURNS TABLE (number int, code text, message text, detail text)
LANGUAGE plpgsql SET plan_cache_mode TO auto SET enable_seqscan TO off AS $$
DECLARE
    try jsonb;
    tried requests;
BEGIN
    number := -1;
    FOR try IN SELECT jsonb_array_elements(tries) LOOP
        number := number + 1;
        BEGIN
            tried := jsonb_populate_record(NULL::requests, try -> 'row');
            IF (try -> 'is_new')::boolean THEN
                INSERT INTO requests SELECT tried.*;
            ELSE
                UPDATE requests
                SET state = tried.state, code = tried.code, sequence = tried.sequence, decided_at = tried.decided_at
                WHERE log_id = tried.log_id AND partition = tried.partition AND "offset" = tried."offset";
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
    """Nothing: the function before this one finds the same."""
