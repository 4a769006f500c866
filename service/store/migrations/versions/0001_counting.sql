-- Triggers on requests move the counters of coupons and check the sequences, whatever program writes the rows.
-- Each runs once per statement and updates each coupon once. See docs/decisions/0002.

CREATE FUNCTION count_inserted_requests() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    coupons_touched bigint;
    coupons_moved bigint;
BEGIN
    WITH delta AS (
        SELECT coupon_id, sum(issued) AS issued, sum(held) AS held, sum(standby) AS standby,
               min(sequence) AS first, max(sequence) AS last, count(DISTINCT sequence) AS sequences
        FROM (
            SELECT coupon_id, (state = 'issued')::int AS issued, (state = 'retrying')::int AS held,
                   (state = 'standby')::int AS standby, sequence
            FROM new_rows WHERE state IN ('issued', 'retrying', 'standby')
        ) AS change
        GROUP BY coupon_id
        HAVING bool_or(issued <> 0 OR held <> 0 OR standby <> 0)
    ), moved AS (
        UPDATE coupons
        SET issued = coupons.issued + delta.issued, held = coupons.held + delta.held,
            standby = coupons.standby + delta.standby
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
END $$;

-- The change is the new rows minus the old rows, computed without a join: PostgreSQL keeps a trigger's plan, and a join
-- planned for few rows compares every row with every other once there are many. A row that was issued before is in both
-- with its sequence, because requests_issued_stay lets nobody change it.
CREATE FUNCTION count_updated_requests() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    coupons_touched bigint;
    coupons_moved bigint;
BEGIN
    WITH delta AS (
        SELECT coupon_id, sum(issued) AS issued, sum(held) AS held, sum(standby) AS standby,
               min(sequence) AS first, max(sequence) AS last, count(DISTINCT sequence) AS sequences
        FROM (
            SELECT coupon_id, sum(issued)::int AS issued, sum(held)::int AS held, sum(standby)::int AS standby,
                   CASE WHEN sum(issued) > 0 THEN sequence END AS sequence
            FROM (
                SELECT coupon_id, sequence, (state = 'issued')::int AS issued, (state = 'retrying')::int AS held,
                       (state = 'standby')::int AS standby
                FROM new_rows
                UNION ALL
                SELECT coupon_id, sequence, -(state = 'issued')::int, -(state = 'retrying')::int,
                       -(state = 'standby')::int
                FROM old_rows
            ) AS version
            GROUP BY coupon_id, sequence
        ) AS change
        GROUP BY coupon_id
        HAVING bool_or(issued <> 0 OR held <> 0 OR standby <> 0)
    ), moved AS (
        UPDATE coupons
        SET issued = coupons.issued + delta.issued, held = coupons.held + delta.held,
            standby = coupons.standby + delta.standby
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
END $$;

CREATE TRIGGER requests_inserted AFTER INSERT ON requests
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_inserted_requests();

CREATE TRIGGER requests_updated AFTER UPDATE ON requests
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION count_updated_requests();

-- An issued request keeps its coupon, user, place and sequence.
CREATE FUNCTION keep_issued_requests() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was issued stays as it was issued'
        USING ERRCODE = 'check_violation', TABLE = 'requests', CONSTRAINT = 'requests_issued_stay';
END $$;

CREATE TRIGGER requests_issued_stay
    BEFORE UPDATE OF log_id, partition, "offset", coupon_id, user_id, state, sequence ON requests
    FOR EACH ROW WHEN (old.state = 'issued') EXECUTE FUNCTION keep_issued_requests();
