-- Returns the requests that cannot be written, with the error of each. Each is written alone and rolled back, all in one
-- round trip. The SQLSTATE CU000 ends the block of a row that was written and takes the row back. A cancelled statement
-- is not a row's failure: WHEN others does not catch it.
--
-- The function keeps its plans (planned again for each request they would add two thirds to its time) and uses indexes
-- only, because a plan kept from when the tables were small must not read all rows later. See docs/decisions/0001.
CREATE FUNCTION failing_requests(tries jsonb)
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
END $$;
