"""Queries on the keys with which callers created coupons."""

from typing import NamedTuple

from sqlalchemy import Connection, text

from service.limits import IDEMPOTENCY_KEY_DAYS

#: an arbitrary number: whoever has this lock deletes what has expired, and no other transaction waits for that
_DELETION_LOCK = 4_217_002


class EarlierRequest(NamedTuple):
    """A request that a caller sent with the same key."""

    #: of what it sent
    fingerprint: bytes
    coupon_id: int


def lock_and_find(tx: Connection, caller: str, key: str) -> EarlierRequest | None:
    """Return the caller's request with this key, or None; another transaction that looks waits for this one.

    The row is read by a second statement, whose snapshot has what the lock waited for.
    """
    of_key = {"caller": caller, "key": key}
    lock = "SELECT pg_advisory_xact_lock(hashtextextended(CAST(:caller AS text), hashtext(CAST(:key AS text))))"
    tx.execute(text(lock), of_key)
    find = text("SELECT fingerprint, coupon_id FROM idempotency_keys WHERE caller = :caller AND key = :key")
    row = tx.execute(find, of_key).one_or_none()
    return None if row is None else EarlierRequest(*row)


def insert(tx: Connection, caller: str, key: str, request: EarlierRequest) -> None:
    """Store what a caller created with a key that lock_and_find() has not found; delete the keys that have expired."""
    tx.execute(
        text(
            "INSERT INTO idempotency_keys (caller, key, fingerprint, coupon_id)"
            " VALUES (:caller, :key, :fingerprint, :coupon_id)"
        ),
        {"caller": caller, "key": key, **request._asdict()},
    )
    tx.execute(
        text(
            "DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(days => :days)"
            " AND (SELECT pg_try_advisory_xact_lock(:lock))"
        ),
        {"days": IDEMPOTENCY_KEY_DAYS, "lock": _DELETION_LOCK},
    )
