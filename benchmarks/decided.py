"""What the database says of a round: how fast requests were decided, how long each waited, that promises are kept."""

import time
from collections.abc import Sequence

from sqlalchemy import text

from benchmarks.ground import Ground, await_that
from benchmarks.load.plan import Pressed

# the first commit's rows do not count: it is not known how long they took
_RATE = text(
    "WITH decided AS (SELECT decided_at FROM requests WHERE state = 'issued' AND coupon_id = ANY(:coupons))"
    " SELECT (SELECT count(*) FROM decided WHERE decided_at > first) / extract(epoch FROM last - first)::float8"
    " FROM (SELECT min(decided_at) AS first, max(decided_at) AS last FROM decided) AS ends"
)
_COMMITTED = text(
    "SELECT user_id, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM requests"
    " WHERE state = 'issued' AND coupon_id = ANY(:coupons)"
)
_IN_LINE = text(
    "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - requested_at)::float8 FROM requests"
    " WHERE state = 'issued' AND coupon_id = ANY(:coupons) AND user_id <= :last"
)
_ISSUED = text(
    "SELECT count(*), count(DISTINCT user_id), coalesce(min(sequence), 1), coalesce(max(sequence), 0)"
    " FROM requests WHERE coupon_id = :coupon AND state = 'issued'"
)


def rate(ground: Ground, *coupon_ids: int) -> float:
    """Requests for these coupons issued per second, between the first and the last of them."""
    with ground.store.begin() as tx:
        return float(tx.execute(_RATE, {"coupons": list(coupon_ids)}).scalar_one())


def await_issued(ground: Ground, coupon_id: int, wanted: int, within_seconds: float = 120.0) -> None:
    """Waits until so many of the coupon are issued, and checks that they are issued as promised."""
    await_that(lambda: ground.issued(coupon_id) >= wanted, f"{wanted} of coupon {coupon_id} issued", within_seconds)
    check(ground, coupon_id, wanted)


def check(ground: Ground, coupon_id: int, wanted: int) -> None:
    """Raises AssertionError unless exactly so many are issued, one per user, numbered without a gap."""
    with ground.store.begin() as tx:
        found = tx.execute(_ISSUED, {"coupon": coupon_id}).one()
    assert tuple(found) == (wanted, wanted, 1, wanted), f"issued, users, first, last: {tuple(found)}, not {wanted}"


def committed(ground: Ground, coupon_ids: Sequence[int]) -> dict[int, float]:
    """When each user's issuance was committed, in seconds since 1970."""
    with ground.store.begin() as tx:
        return dict(tx.execute(_COMMITTED, {"coupons": list(coupon_ids)}).tuples().all())


def in_line(ground: Ground, coupon_ids: Sequence[int], last_user: int) -> list[float]:
    """Seconds from when the API took each issued request of users up to one up, before the gate, to the commit."""
    with ground.store.begin() as tx:
        return list(tx.execute(_IN_LINE, {"coupons": list(coupon_ids), "last": last_user}).scalars())


def waits(ground: Ground, coupon_ids: Sequence[int], first_user: int, pressed: Pressed) -> list[float]:
    """Seconds from when each request was due to the commit of its issuance, in the order of the requests.

    Raises AssertionError if one is not issued.
    """
    at = committed(ground, coupon_ids)
    users = range(first_user, first_user + len(pressed.due))
    missing = [user for user in users if user not in at]
    assert not missing, f"{len(missing)} accepted requests are not issued"
    return [at[user] - due for user, due in zip(users, pressed.due, strict=True)]


def await_none(ground: Ground, what: str, query: str, within_seconds: float = 120.0) -> float:
    """Waits until a query gives 0; the seconds that it took."""
    began = time.monotonic()
    await_that(lambda: ground.count(query) == 0, what, within_seconds)
    return time.monotonic() - began
