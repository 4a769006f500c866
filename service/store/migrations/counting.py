"""The functions of the counting triggers, made from the counters that a revision knows."""

from collections.abc import Mapping

_FUNCTION = """
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    coupons_touched bigint;
    coupons_moved bigint;
BEGIN
    WITH delta AS (
        SELECT coupon_id, {sums},
               min(sequence) AS first, max(sequence) AS last, count(DISTINCT sequence) AS sequences
        FROM ({changes}) AS change
        GROUP BY coupon_id
        HAVING bool_or({any})
    ), moved AS (
        UPDATE coupons SET {moves}
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

_INSERTED = "SELECT coupon_id, {counts}, sequence FROM new_rows WHERE state IN ({states})"

# The rows as they are less the rows as they were, without a join: PostgreSQL keeps a trigger's plan, and a join of few
# rows compares each with all the others once there are many. What was issued before is in both with its sequence,
# as `requests_issued_stay` lets nobody touch it.
_UPDATED = """
    SELECT coupon_id, {differences}, CASE WHEN sum(issued) > 0 THEN sequence END AS sequence
    FROM (
        SELECT coupon_id, sequence, {counts} FROM new_rows
        UNION ALL
        SELECT coupon_id, sequence, {discounts} FROM old_rows
    ) AS version
    GROUP BY coupon_id, sequence
"""


def functions(counters: Mapping[str, str]) -> list[str]:
    """The statements that make both functions; `counters` are a coupon's columns with the state that each counts."""
    counts = ", ".join(f"(state = '{state}')::int AS {column}" for column, state in counters.items())
    inserted = _INSERTED.format(counts=counts, states=", ".join(f"'{state}'" for state in counters.values()))
    updated = _UPDATED.format(
        differences=", ".join(f"sum({column})::int AS {column}" for column in counters),
        counts=counts,
        discounts=", ".join(f"-(state = '{state}')::int" for state in counters.values()),
    )
    return [
        _function("count_inserted_requests", inserted, counters),
        _function("count_updated_requests", updated, counters),
    ]


def _function(name: str, changes: str, counters: Mapping[str, str]) -> str:
    return _FUNCTION.format(
        function=name,
        changes=changes,
        sums=", ".join(f"sum({column}) AS {column}" for column in counters),
        any=" OR ".join(f"{column} <> 0" for column in counters),
        moves=", ".join(f"{column} = coupons.{column} + delta.{column}" for column in counters),
    )
