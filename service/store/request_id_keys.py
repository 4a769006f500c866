"""Queries on the register of the keys that sign request ids; it holds their fingerprints, never a key."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text


class RegisteredKey(NamedTuple):
    """A key by its fingerprint."""

    fingerprint: str
    #: when an issuer was first started that verifies with it
    announced_at: datetime
    #: since when processes sign with it; None: it only verifies
    signs_since: datetime | None
    #: ids that it signs later are foreign; None: it has no end
    ends_at: datetime | None
    has_ended: bool
    #: when a record with such a later id was last read, exact to a minute
    late_id_at: datetime | None
    #: that was within the last hour
    has_late_ids: bool


def lock(tx: Connection) -> None:
    """Let no other transaction change the register before the end of this one; reading goes on."""
    tx.execute(text("LOCK TABLE request_id_keys IN SHARE ROW EXCLUSIVE MODE"))


def registered(tx: Connection) -> list[RegisteredKey]:
    """Return every key of the register, oldest first."""
    rows = tx.execute(
        text(
            "SELECT fingerprint, announced_at, signs_since, ends_at, coalesce(ends_at <= now(), false), late_id_at,"
            " coalesce(late_id_at > now() - interval '1 hour', false)"
            " FROM request_id_keys ORDER BY announced_at, fingerprint"
        )
    )
    return [RegisteredKey(*row) for row in rows]


def announce(tx: Connection, fingerprints: Sequence[str]) -> None:
    """Record that an issuer verifies with these keys."""
    tx.execute(
        text(
            "INSERT INTO request_id_keys (fingerprint) SELECT unnest(CAST(:fingerprints AS text[]))"
            " ON CONFLICT (fingerprint) DO NOTHING"
        ),
        {"fingerprints": list(fingerprints)},
    )


def mark_signing(tx: Connection, fingerprint: str) -> None:
    """Record that processes sign with the key from now on."""
    tx.execute(
        text(
            "INSERT INTO request_id_keys (fingerprint, signs_since) VALUES (:fingerprint, now())"
            " ON CONFLICT (fingerprint) DO UPDATE SET signs_since = now() WHERE request_id_keys.signs_since IS NULL"
        ),
        {"fingerprint": fingerprint},
    )


def set_end(tx: Connection, fingerprint: str, in_seconds: int) -> datetime | None:
    """Let a key end in so many seconds, unless it has an end; return its end, or None if it is not registered."""
    ends_at: datetime | None = tx.execute(
        text(
            "UPDATE request_id_keys SET ends_at = coalesce(ends_at, now() + make_interval(secs => :in_seconds))"
            " WHERE fingerprint = :fingerprint RETURNING ends_at"
        ),
        {"fingerprint": fingerprint, "in_seconds": in_seconds},
    ).scalar()
    return ends_at


def record_late_ids(tx: Connection, fingerprints: Collection[str]) -> None:
    """Record that records with ids were read which these keys signed after their end.

    At most once a minute, so that issuers do not wait for each other's commit with every batch.
    """
    tx.execute(
        text(
            "UPDATE request_id_keys SET late_id_at = now() WHERE fingerprint = ANY(:fingerprints)"
            " AND (late_id_at IS NULL OR late_id_at < now() - interval '1 minute')"
        ),
        {"fingerprints": sorted(fingerprints)},
    )


def remove(tx: Connection, fingerprint: str) -> bool:
    """Remove a key from the register; return whether it was there."""
    removed = tx.execute(
        text("DELETE FROM request_id_keys WHERE fingerprint = :fingerprint"), {"fingerprint": fingerprint}
    )
    return removed.rowcount > 0
