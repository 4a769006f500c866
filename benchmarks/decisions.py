"""Decisions of a round, read from the database: issue rate, waits until the commit, and checks of what was issued."""

from collections.abc import Sequence

from sqlalchemy import text

from benchmarks.environment import Environment, wait_until
from benchmarks.load.http_load import LoadResult

# rows of the first commit do not count: the time that they took is unknown
_RATE = text(
    "WITH decided AS (SELECT decided_at FROM requests WHERE state = 'issued' AND coupon_id = ANY(:coupons))"
    " SELECT (SELECT count(*) FROM decided WHERE decided_at > first) / extract(epoch FROM last - first)::float8"
    " FROM (SELECT min(decided_at) AS first, max(decided_at) AS last FROM decided) AS ends"
)
_COMMIT_TIMES = text(
    "SELECT user_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM requests"
    " WHERE state = 'issued' AND coupon_id = ANY(:coupons)"
)
_SINCE_REQUEST = text(
    "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - requested_at)::float8 FROM requests"
    " WHERE state = 'issued' AND coupon_id = ANY(:coupons) AND user_id <= :last"
)
_ISSUED = text(
    "SELECT count(*), count(DISTINCT user_id), coalesce(min(sequence), 1), coalesce(max(sequence), 0)"
    " FROM requests WHERE coupon_id = :coupon AND state = 'issued'"
)


def issue_rate(environment: Environment, *coupon_ids: int) -> float:
    """Return issuances per second of these coupons, between their first and their last commit."""
    with environment.store.begin() as tx:
        return float(tx.execute(_RATE, {"coupons": list(coupon_ids)}).scalar_one())


def wait_for_issued(environment: Environment, coupon_id: int, expected: int, timeout_seconds: float = 120.0) -> None:
    """Wait until `expected` requests for the coupon are issued, then call `check_issued`."""
    wait_for_count(environment, coupon_id, expected, timeout_seconds)
    check_issued(environment, coupon_id, expected)


def wait_for_count(environment: Environment, coupon_id: int, expected: int, timeout_seconds: float = 120.0) -> None:
    """Wait until the coupon's counter reaches `expected`; unlike `check_issued`, it costs the database nothing."""
    description = f"{expected} of coupon {coupon_id} issued"
    wait_until(lambda: environment.issued_count(coupon_id) >= expected, description, timeout_seconds)


def check_issued(environment: Environment, coupon_id: int, expected: int) -> None:
    """Raise AssertionError unless exactly `expected` are issued, one per user, with sequence 1..n without a gap."""
    with environment.store.begin() as tx:
        found = tx.execute(_ISSUED, {"coupon": coupon_id}).one()
    assert tuple(found) == (expected, expected, 1, expected), (
        f"issued, users, first and last sequence: {tuple(found)}, expected {expected}"
    )


def commit_times(environment: Environment, coupon_ids: Sequence[int]) -> dict[int, float]:
    """Return the commit time of each user's issuance, in seconds since 1970."""
    with environment.store.begin() as tx:
        return dict(tx.execute(_COMMIT_TIMES, {"coupons": list(coupon_ids)}).tuples().all())


def seconds_since_request(environment: Environment, coupon_ids: Sequence[int], last_user: int) -> list[float]:
    """Return seconds from `requested_at` to the commit, for issued requests of users up to `last_user`.

    The API sets `requested_at` when it receives the request, before it calls the gate.
    """
    with environment.store.begin() as tx:
        return list(tx.execute(_SINCE_REQUEST, {"coupons": list(coupon_ids), "last": last_user}).scalars())


def waits(environment: Environment, coupon_ids: Sequence[int], first_user: int, result: LoadResult) -> list[float]:
    """Return seconds from when each request was due to the commit of its issuance, in the order of the requests.

    Raises AssertionError if a request is not issued.
    """
    committed = commit_times(environment, coupon_ids)
    users = range(first_user, first_user + len(result.due))
    missing = [user for user in users if user not in committed]
    assert not missing, f"{len(missing)} accepted requests are not issued"
    return [committed[user] - due for user, due in zip(users, result.due, strict=True)]


def wait_for_zero(environment: Environment, description: str, query: str, timeout_seconds: float = 120.0) -> None:
    """Wait until a query selects 0; raise AssertionError after the timeout."""
    wait_until(lambda: environment.query_int(query) == 0, description, timeout_seconds)
